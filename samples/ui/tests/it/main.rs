//! The service as its users see it: over HTTP, and in a real browser.
#![allow(clippy::unwrap_used)] // A test that unwraps what it got fails with the reason.

mod browser;
mod page;
mod proxy;
mod running;
mod support;
