//! How a request ended.

use std::time::Duration;

/// How a request ended, as far as it says something about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The endpoint answered.
    Succeeded,
    /// The request failed and the endpoint is to blame: connection refused or broken, no answer in
    /// time, or a 5xx answer.
    Failed,
    /// The endpoint is overloaded: 429, or 503 with `Retry-After`.
    Rejected {
        /// The pause that the endpoint asked for, if it did.
        retry_after: Option<Duration>,
    },
}
