//! Tests of the page in a real browser.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod registry;
