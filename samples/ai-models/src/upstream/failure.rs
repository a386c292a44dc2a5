//! What a failure of the upstream server means to our client.

use std::error::Error;

use http::{StatusCode, header};
use serde_json::{Value, json};

use super::Upstream;
use crate::problem::Problem;

/// The most of an upstream's own words that is repeated, in bytes.
const MAX_WORDS: usize = 500;

impl Upstream {
    /// The request got no answer at all.
    pub(super) fn no_answer(&self, error: &reqwest::Error) -> Problem {
        let url = self.shown_url();
        if error.is_timeout() && !error.is_connect() {
            return self.too_slow();
        }
        let cause = root_cause(error);
        let detail = format!(
            "The upstream server {url} can't be reached: {cause}. The local models go on answering."
        );
        Problem::upstream(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream-unavailable",
            "Upstream unavailable",
            detail,
        )
        .retry_after(5)
    }

    pub(super) fn too_slow(&self) -> Problem {
        let detail = format!(
            "The upstream server {} took too long to go on.",
            self.shown_url()
        );
        Problem::upstream(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream-timeout",
            "Upstream too slow",
            detail,
        )
    }

    /// The server answered with something that isn't what its API promises.
    pub(super) fn not_understood(&self, why: &str) -> Problem {
        let detail = format!(
            "The answer of the upstream server {} isn't understood: {why}.",
            self.shown_url()
        );
        Problem::upstream(
            StatusCode::BAD_GATEWAY,
            "upstream-invalid",
            "Upstream not understood",
            detail,
        )
    }

    /// The answer broke off before its end.
    pub(super) fn broke_off(&self, why: &str) -> Problem {
        let detail = format!(
            "The upstream server {} broke off its answer: {why}.",
            self.shown_url()
        );
        Problem::upstream(
            StatusCode::BAD_GATEWAY,
            "upstream-broke-off",
            "Upstream broke off",
            detail,
        )
    }

    /// The server reported an error in the middle of a streamed answer.
    pub(super) fn reported(&self, error: &Value) -> Problem {
        let detail = format!(
            "The upstream server {} says: {}.",
            self.shown_url(),
            words(error)
        );
        Problem::upstream(
            StatusCode::BAD_GATEWAY,
            "upstream-error",
            "Upstream error",
            detail,
        )
    }

    /// The server answered with an error status.
    pub(super) async fn refused(&self, response: reqwest::Response) -> Problem {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.unwrap_or_default();
        let said = match serde_json::from_slice::<Value>(&body) {
            Ok(json) => words(json.get("error").unwrap_or(&json)),
            Err(_) => shorten(&String::from_utf8_lossy(&body)),
        };
        let url = self.shown_url();
        let detail = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                format!(
                    "The upstream server {url} refuses the key in AI_MODELS_UPSTREAM_KEY ({status}): {said}"
                )
            }
            _ => format!("The upstream server {url} answers {status}: {said}"),
        };
        let problem = match status {
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Problem::upstream(
                StatusCode::UNPROCESSABLE_ENTITY,
                "upstream-refused",
                "Upstream refused",
                detail,
            ),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Problem::upstream(
                StatusCode::SERVICE_UNAVAILABLE,
                "upstream-busy",
                "Upstream busy",
                detail,
            )
            .retry_after(retry_after.unwrap_or(5)),
            _ => Problem::upstream(
                StatusCode::BAD_GATEWAY,
                "upstream-error",
                "Upstream error",
                detail,
            ),
        };
        problem.with("upstream_status", json!(status.as_u16()))
    }
}

/// The innermost cause: "Connection refused" rather than "error sending request".
pub(super) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// The message in an error of OpenAI's form (`{"message": …}`), of Ollama's (a string), or any other.
fn words(error: &Value) -> String {
    let message = error.as_str().or_else(|| error.get("message")?.as_str());
    shorten(&message.map_or_else(|| error.to_string(), str::to_owned))
}

fn shorten(words: &str) -> String {
    let words = words.trim();
    match words.char_indices().nth(MAX_WORDS) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None if words.is_empty() => "(nothing)".to_owned(),
        None => words.to_owned(),
    }
}
