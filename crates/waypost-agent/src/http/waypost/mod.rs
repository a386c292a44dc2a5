//! `/v1/waypost`: an API that Consul doesn't have. It is used by the dashboard, and can be used by
//! scripts.

pub(super) mod checks;
pub(super) mod events;
mod health_history;

use std::time::{SystemTime, UNIX_EPOCH};

/// Formats a time as in RFC 3339, with milliseconds.
fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time.max(UNIX_EPOCH)).to_string()
}
