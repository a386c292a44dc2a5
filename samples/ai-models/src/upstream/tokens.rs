//! Reads a streamed response.

use std::time::Duration;

use futures_util::stream;
use futures_util::stream::{BoxStream, StreamExt};
use serde_json::Value;
use tokio::time::timeout;

use super::events::{EventReader, ReadError, ServerEvent};
use super::problems::Problems;
use super::wire::{Completion, Finish, error_in};
use crate::problem::Problem;

/// The largest response, in bytes.
const MAX_RESPONSE: usize = 32 * 1024 * 1024;

/// The longest text of a response, in bytes.
const MAX_TEXT: usize = 1024 * 1024;

/// How long to wait for the end of the response after a `finish_reason`. It should end at once, but a
/// server may leave the connection open.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// The tokens of a streamed response. Ends after the last token or the first problem.
pub(crate) type TokenStream = BoxStream<'static, Result<String, Problem>>;

/// Reads the tokens of a response. A pause longer than `idle_timeout` is a problem.
pub(super) fn read(
    response: reqwest::Response,
    idle_timeout: Duration,
    problems: Problems,
) -> TokenStream {
    let reader = Reader {
        events: EventReader::new(response, MAX_RESPONSE),
        idle_timeout,
        problems,
        is_finished: false,
        remaining_text: MAX_TEXT,
    };
    stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next_token().await {
            Ok(token) => Some((Ok(token?), Some(reader))),
            Err(problem) => Some((Err(problem), None)),
        }
    })
    .boxed()
}

struct Reader {
    events: EventReader,
    idle_timeout: Duration,
    problems: Problems,
    /// Whether there was a `finish_reason`. Only then is the answer complete: servers send `[DONE]`
    /// after a failure too. It doesn't matter how the response ends after that.
    is_finished: bool,
    remaining_text: usize,
}

impl Reader {
    /// The next token; `None` at the end of the response.
    async fn next_token(&mut self) -> Result<Option<String>, Problem> {
        loop {
            let Some(event) = self.next_event().await? else {
                return Ok(None);
            };
            let problems = &self.problems;
            if !event.error.is_empty() {
                let error = event.error;
                let error = serde_json::from_str(&error).unwrap_or(Value::String(error));
                return Err(problems.reported(error.get("error").unwrap_or(&error)));
            }
            if event.data.trim() == "[DONE]" {
                if self.is_finished {
                    return Ok(None);
                }
                return Err(problems.interrupted("the stream ended without a finish_reason"));
            }
            let json = match serde_json::from_str::<Value>(&event.data) {
                Ok(json) => json,
                Err(_) if event.name == "error" => Value::String(event.data),
                // Keep-alives and other events that are not about the answer.
                Err(_) if self.is_finished || event.data.trim().is_empty() => continue,
                Err(_) if !matches!(event.name.as_str(), "" | "message") => continue,
                Err(error) => return Err(problems.invalid_response(&error)),
            };
            let error = error_in(&json).or_else(|| (event.name == "error").then_some(&json));
            if let Some(error) = error {
                return Err(problems.reported(error));
            }
            let completion = match serde_json::from_value::<Completion>(json) {
                Ok(completion) => completion,
                Err(_) if self.is_finished => continue,
                Err(error) => return Err(problems.invalid_response(&error)),
            };
            let Some(choice) = completion.into_first_choice() else {
                continue;
            };
            match choice.finish() {
                Some(Finish::Failed) => return Err(problems.failed_finish(choice.finish_reason())),
                Some(Finish::Complete) => self.is_finished = true,
                None => {}
            }
            let token = choice.text();
            if !token.is_empty() {
                let Some(remaining) = self.remaining_text.checked_sub(token.len()) else {
                    return Err(problems.too_large(MAX_TEXT));
                };
                self.remaining_text = remaining;
                return Ok(Some(token));
            }
        }
    }

    /// The next event; `None` at the end of a complete answer.
    async fn next_event(&mut self) -> Result<Option<ServerEvent>, Problem> {
        let limit = if self.is_finished {
            FINISH_TIMEOUT
        } else {
            self.idle_timeout
        };
        let problems = &self.problems;
        match timeout(limit, self.events.next()).await {
            Ok(Ok(Some(event))) => Ok(Some(event)),
            _ if self.is_finished => Ok(None),
            Err(_) => Err(problems.timed_out()),
            Ok(Ok(None)) => Err(problems.interrupted("the stream ended early")),
            Ok(Err(ReadError::Interrupted(reason))) => Err(problems.interrupted(&reason)),
            Ok(Err(ReadError::EventTooLong(limit) | ReadError::ResponseTooLong(limit))) => {
                Err(problems.too_large(limit))
            }
        }
    }
}
