//! Tests of the service over HTTP and in a real browser.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod page;
mod proxy;
mod run;
mod support;
