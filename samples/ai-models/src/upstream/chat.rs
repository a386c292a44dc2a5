//! Asking the upstream server: one user message, the answer whole or token by token.

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use http::header::ACCEPT;
use serde::Deserialize;
use serde_json::{Value, json};
use sse_stream::SseStream;

use super::Upstream;
use super::failure::root_cause;
use crate::models::Parameters;
use crate::problem::Problem;

/// How long a whole answer may take. Large models on small machines are slow, so it's generous.
const WHOLE: Duration = Duration::from_secs(300);

/// How long a streamed answer may stay silent. The first token may have to wait until the server
/// has loaded the model.
const SILENCE: Duration = Duration::from_secs(120);

/// The pieces of a streamed answer; ends after the last one or the first problem.
pub(crate) type Tokens = BoxStream<'static, Result<String, Problem>>;

impl Upstream {
    /// The server's whole answer to one text.
    pub(crate) async fn ask(
        &self,
        model: &str,
        input: &str,
        parameters: &Parameters,
    ) -> Result<String, Problem> {
        let whole = async {
            let response = self.send(model, input, parameters, false).await?;
            let body = response
                .bytes()
                .await
                .map_err(|error| self.broke_off(&root_cause(&error)))?;
            let answer: Answer = serde_json::from_slice(&body)
                .map_err(|error| self.not_understood(&error.to_string()))?;
            let choice = answer
                .choices
                .into_iter()
                .next()
                .ok_or_else(|| self.not_understood("it has no choices"))?;
            Ok(choice.message.content.unwrap_or_default())
        };
        tokio::time::timeout(WHOLE, whole)
            .await
            .unwrap_or_else(|_| Err(self.too_slow()))
    }

    /// The server's answer as it is written. Dropping the stream tells the server to stop.
    pub(crate) async fn ask_streaming(
        self: &std::sync::Arc<Self>,
        model: &str,
        input: &str,
        parameters: &Parameters,
    ) -> Result<Tokens, Problem> {
        let answer = tokio::time::timeout(SILENCE, self.send(model, input, parameters, true)).await;
        let response = answer.unwrap_or_else(|_| Err(self.too_slow()))?;
        let events = SseStream::from_bytes_stream(response.bytes_stream()).boxed();
        let state = Reading {
            upstream: self.clone(),
            events,
            finished: false,
        };
        Ok(
            futures_util::stream::unfold(Some(state), |state| async move { state?.next().await })
                .boxed(),
        )
    }

    async fn send(
        &self,
        model: &str,
        input: &str,
        parameters: &Parameters,
        stream: bool,
    ) -> Result<reqwest::Response, Problem> {
        let mut body = parameters.clone();
        for (name, value) in [
            ("model", json!(model)),
            ("messages", json!([{"role": "user", "content": input}])),
            ("stream", json!(stream)),
        ] {
            if body.insert(name.to_owned(), value).is_some() {
                return Err(Problem::bad_parameter(
                    name,
                    "left to this service",
                    &parameters[name],
                ));
            }
        }
        let accept = if stream {
            "text/event-stream"
        } else {
            "application/json"
        };
        let request = self
            .http
            .post(self.url("chat/completions"))
            .header(ACCEPT, accept)
            .json(&body);
        let response = request
            .send()
            .await
            .map_err(|error| self.no_answer(&error))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        Ok(response)
    }
}

/// A streamed answer being read.
struct Reading {
    upstream: std::sync::Arc<Upstream>,
    events: BoxStream<'static, Result<sse_stream::Sse, sse_stream::Error>>,
    /// Whether the server gave a reason to finish, after which it may just close.
    finished: bool,
}

/// What one event of the stream amounts to.
enum Step {
    Token(String),
    Nothing,
    End,
}

impl Reading {
    async fn next(mut self) -> Option<(Result<String, Problem>, Option<Self>)> {
        loop {
            match self.step().await {
                Ok(Step::Token(text)) => return Some((Ok(text), Some(self))),
                Ok(Step::Nothing) => {}
                Ok(Step::End) => return None,
                Err(problem) => return Some((Err(problem), None)),
            }
        }
    }

    async fn step(&mut self) -> Result<Step, Problem> {
        let upstream = &self.upstream;
        let event = match tokio::time::timeout(SILENCE, self.events.next()).await {
            Err(_) => return Err(upstream.too_slow()),
            Ok(None) if self.finished => return Ok(Step::End),
            Ok(None) => return Err(upstream.broke_off("the stream ended before the answer did")),
            Ok(Some(event)) => event.map_err(|error| upstream.broke_off(&root_cause(&error)))?,
        };
        let Some(data) = event.data else {
            return Ok(Step::Nothing);
        };
        if data.trim() == "[DONE]" {
            return Ok(Step::End);
        }
        let chunk: Chunk = serde_json::from_str(&data)
            .map_err(|error| upstream.not_understood(&error.to_string()))?;
        if let Some(error) = chunk.error {
            return Err(upstream.reported(&error));
        }
        let Some(choice) = chunk.choices.into_iter().next() else {
            return Ok(Step::Nothing);
        };
        self.finished |= choice.finish_reason.is_some();
        let text = choice
            .delta
            .and_then(|delta| delta.content)
            .filter(|text| !text.is_empty());
        Ok(text.map_or(Step::Nothing, Step::Token))
    }
}

#[derive(Deserialize)]
struct Answer {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<ChunkChoice>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct ChunkChoice {
    delta: Option<Message>,
    finish_reason: Option<String>,
}
