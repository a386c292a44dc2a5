//! Reads a streamed response.

use std::time::Duration;

use futures_util::stream;
use futures_util::stream::{BoxStream, StreamExt};
use sse_stream::SseStream;
use tokio::time::timeout;

use super::problems::{Problems, root_cause};
use super::wire::Chunk;
use crate::problem::Problem;

/// The tokens of a streamed response. Ends after the last token or the first problem.
pub(crate) type TokenStream = BoxStream<'static, Result<String, Problem>>;

/// Reads the tokens of a response. A pause longer than `idle_timeout` is a problem.
pub(super) fn read(
    response: reqwest::Response,
    idle_timeout: Duration,
    problems: Problems,
) -> TokenStream {
    let reader = Reader {
        events: SseStream::from_bytes_stream(response.bytes_stream()).boxed(),
        idle_timeout,
        problems,
        is_finished: false,
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
    events: BoxStream<'static, Result<sse_stream::Sse, sse_stream::Error>>,
    idle_timeout: Duration,
    problems: Problems,
    /// Whether there was a `finish_reason`, after which the server may close the connection.
    is_finished: bool,
}

impl Reader {
    /// The next token; `None` at the end of the response.
    async fn next_token(&mut self) -> Result<Option<String>, Problem> {
        let problems = &self.problems;
        loop {
            let event = match timeout(self.idle_timeout, self.events.next()).await {
                Err(_) => return Err(problems.timed_out()),
                Ok(None) if self.is_finished => return Ok(None),
                Ok(None) => return Err(problems.interrupted("the stream ended early")),
                Ok(Some(event)) => {
                    event.map_err(|error| problems.interrupted(&root_cause(&error)))?
                }
            };
            let Some(data) = event.data else { continue };
            if data.trim() == "[DONE]" {
                return Ok(None);
            }
            let chunk: Chunk =
                serde_json::from_str(&data).map_err(|error| problems.invalid_response(&error))?;
            if let Some(error) = chunk.error {
                return Err(problems.error_event(&error));
            }
            let Some(choice) = chunk.choices.into_iter().next() else {
                continue;
            };
            self.is_finished |= choice.finish_reason.is_some();
            let token = choice.delta.and_then(|delta| delta.content);
            if let Some(token) = token.filter(|token| !token.is_empty()) {
                return Ok(Some(token));
            }
        }
    }
}
