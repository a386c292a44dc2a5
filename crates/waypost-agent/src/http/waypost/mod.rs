//! `/v1/waypost`: what Consul's API lacks. The dashboard is built on it, and scripts can be.

pub(super) mod checks;
pub(super) mod events;
mod health_history;

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as in RFC 3339, with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time.max(UNIX_EPOCH)).to_string()
}
