//! The problems that a client gets when the upstream server fails.

use std::fmt;
use std::time::Duration;

use http::{StatusCode, header};
use serde_json::{Value, json};

use super::body;
use super::body::root_cause;
use super::wire::error_in;
use crate::problem::Problem;

/// The part of an error's body that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// How long to wait for the body of an error.
const ERROR_BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest part of an error message of the server that is repeated, in characters.
const MAX_MESSAGE: usize = 500;

/// Creates problems that name one upstream server.
pub(super) struct Problems {
    /// The URL of the server.
    pub(super) server: String,
}

impl Problems {
    /// The request failed before a response.
    pub(super) fn no_response(&self, error: &reqwest::Error) -> Problem {
        if error.is_timeout() && !error.is_connect() {
            return self.timed_out();
        }
        if error.is_redirect() {
            return self.invalid_response(&root_cause(error));
        }
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream-unavailable",
            "Upstream unavailable",
            format!(
                "The upstream server {} can't be reached: {}. The local models still work.",
                self.server,
                root_cause(error)
            ),
        )
        .retry_after(5)
    }

    pub(super) fn timed_out(&self) -> Problem {
        Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream-timeout",
            "Upstream timeout",
            format!(
                "The upstream server {} took too long to respond.",
                self.server
            ),
        )
    }

    /// The response does not conform to the API.
    pub(super) fn invalid_response(&self, reason: &dyn fmt::Display) -> Problem {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            "upstream-invalid",
            "Invalid upstream response",
            format!(
                "The response of the upstream server {} is not valid: {reason}.",
                self.server
            ),
        )
    }

    /// The response ended early.
    pub(super) fn interrupted(&self, reason: &str) -> Problem {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            "upstream-broke-off",
            "Upstream response interrupted",
            format!(
                "The response of the upstream server {} was interrupted: {reason}.",
                self.server
            ),
        )
    }

    /// The response is larger than `limit` bytes.
    pub(super) fn too_large(&self, limit: usize) -> Problem {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            "upstream-too-large",
            "Upstream response too large",
            format!(
                "The response of the upstream server {} is larger than {limit} bytes.",
                self.server
            ),
        )
        .with("limit", json!(limit))
    }

    /// The model stopped before the end of its answer.
    pub(super) fn failed_finish(&self, reason: &str) -> Problem {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            "upstream-error",
            "Upstream error",
            format!(
                "The upstream server {} stopped the answer with the reason {reason:?}.",
                self.server
            ),
        )
    }

    /// The server reported an error in a response with the status 200.
    pub(super) fn reported(&self, error: &Value) -> Problem {
        Problem::new(
            StatusCode::BAD_GATEWAY,
            "upstream-error",
            "Upstream error",
            format!(
                "The upstream server {} reported an error: {}.",
                self.server,
                message(error)
            ),
        )
    }

    /// The server responded with an error status.
    pub(super) async fn error_status(&self, response: reqwest::Response) -> Problem {
        let server = &self.server;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = body::read_start(response, MAX_ERROR_BODY, ERROR_BODY_TIMEOUT).await;
        let message = match serde_json::from_slice::<Value>(&body) {
            Ok(json) => message(error_in(&json).unwrap_or(&json)),
            Err(_) => shorten(&String::from_utf8_lossy(&body)),
        };
        let detail = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => format!(
                "The upstream server {server} rejected AI_MODELS_UPSTREAM_KEY ({status}): {message}"
            ),
            _ => format!("The upstream server {server} responded with {status}: {message}"),
        };
        let problem = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "upstream-refused",
                "Rejected by upstream",
                detail,
            ),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-busy",
                "Upstream busy",
                detail,
            )
            .retry_after(retry_after.unwrap_or(5)),
            _ => Problem::new(
                StatusCode::BAD_GATEWAY,
                "upstream-error",
                "Upstream error",
                detail,
            ),
        };
        problem.with("upstream_status", json!(status.as_u16()))
    }
}

/// The message of an error in OpenAI's format (`{"message": …}`), FastAPI's (`{"detail": …}`),
/// Ollama's (a string) or another.
fn message(error: &Value) -> String {
    let member = |name| error.get(name)?.as_str();
    let message = error.as_str().or(member("message")).or(member("detail"));
    shorten(&message.map_or_else(|| error.to_string(), str::to_owned))
}

fn shorten(message: &str) -> String {
    let message = message.trim();
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None if message.is_empty() => "(no message)".to_owned(),
        None => message.to_owned(),
    }
}
