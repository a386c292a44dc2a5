//! What users of the library notice, tried from outside of it.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod axum;
mod balance;
mod consul;
mod directory;
mod global;
mod logs;
mod outages;
mod scripted;
