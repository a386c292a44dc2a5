//! How a request ended.

use std::time::Duration;

/// How a request ended, as far as this depends on the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint responded.
    Succeeded,
    /// The request failed because of the endpoint: connection refused or broken, no response in time, or
    /// a 5xx response.
    Failed,
    /// The endpoint is overloaded: 429, or 503 with `Retry-After`.
    Rejected {
        /// The pause that the endpoint requested, if any.
        retry_after: Option<Duration>,
    },
}
