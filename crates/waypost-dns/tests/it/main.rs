//! The provider against DNS servers: the embedded registry's, a real Consul's, and one of the test's own.

#![allow(clippy::unwrap_used)] // a panic fails the test

mod conformance;
mod records;
mod server;

use std::time::Duration;

/// The deadline of a test's steps.
const TIMEOUT: Duration = Duration::from_secs(60);
