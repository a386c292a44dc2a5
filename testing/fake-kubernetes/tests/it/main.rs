//! The server as its clients see it.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod access;
mod client;
mod custom_resources;
mod faults;
mod lists;
mod watches;
mod writes;
