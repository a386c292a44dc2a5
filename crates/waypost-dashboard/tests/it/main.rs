//! Tests of the page in a real browser.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod accessibility;
mod budget;
#[cfg(feature = "server")]
mod consul;
mod fake_stack;
mod pictures;
mod registry;
mod server;
mod shop;
mod stack;
