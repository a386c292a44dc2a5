//! The service as its clients see it: over HTTP, on a free port of this machine.
#![allow(clippy::unwrap_used)] // A test that unwraps what it got fails with the reason.

mod docs;
mod errors;
mod local;
mod running;
mod support;
mod upstream;
