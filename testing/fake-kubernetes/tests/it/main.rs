//! The stand-in as its clients see it.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod client;
mod faults;
mod kubectl;
mod lists;
mod program;
mod rights;
mod watches;
mod writes;
