//! `POST /api/inference/stream`: runs a model and sends the parts of the result as server-sent
//! events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, StreamExt};
use http::HeaderMap;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::inference::{InferenceRequest, OneOrMany, check, milliseconds, parse};
use super::state::ApiState;
use crate::admission::Slot;
use crate::catalog::FoundModel;
use crate::models::{GeneratedText, Model, Output, Parameters, Task};
use crate::problem::Problem;
use crate::upstream::TokenStream;

/// How many events are buffered for a slow client before the model has to wait.
const BUFFER: usize = 16;

/// How long a client may leave events unread while a local model waits for it. Meanwhile the request
/// occupies a slot.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The events of a stream, in this order: `start`, any number of `part` or `token`, and `done` or
/// `error`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum StreamEvent {
    /// `start`: the model is about to run.
    Start {
        model: String,
        task: Task,
        served_by: String,
    },
    /// `part`: the result of a local model for one sentence.
    Part {
        index: usize,
        input: String,
        output: Output,
    },
    /// `token`: the next token of an upstream model.
    Token { text: String },
    /// `done`: the result for the whole text.
    Done { output: Output, elapsed_ms: f64 },
    /// `error`: the model failed.
    Error(Problem),
}

/// Run a model and stream the result
///
/// The events are `start`, then `part` for each sentence (local models) or `token` for each token
/// (upstream models), then `done` with the result for the whole text, or `error`. Closing the
/// connection stops the model.
#[utoipa::path(
    post, path = "/api/inference/stream", tag = "inference",
    request_body(content = InferenceRequest, example = json!({"model": "sentiment", "input": "The room was lovely. The breakfast was awful! Still, we might come back."})),
    responses(
        (status = OK, description = "Server-sent events", body = StreamEvent, content_type = "text/event-stream"),
        (status = BAD_REQUEST, description = "The body is not valid JSON of this schema; `line` and `column` say where", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "No such model; `models` lists the valid IDs", body = Problem, content_type = "application/problem+json"),
        (status = UNSUPPORTED_MEDIA_TYPE, description = "The content type is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = UNPROCESSABLE_ENTITY, description = "The input is empty, too long or a list, or a parameter is not valid", body = Problem, content_type = "application/problem+json"),
        (status = BAD_GATEWAY, description = "The upstream server failed before the first token", body = Problem, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "The upstream server is unreachable, or this instance is overloaded", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stream(
    State(api): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let request = parse(&headers, body)?;
    let model = api.catalog.find(&request.model).await?;
    let characters = check(&request.input, &model)?;
    let OneOrMany::One(text) = request.input else {
        return Err(Problem::one_input_only());
    };

    let (sender, receiver) = mpsc::channel(BUFFER);
    let start = StreamEvent::Start {
        model: model.id().to_owned(),
        task: model.task(),
        served_by: api.instance.to_string(),
    };
    // The channel is empty, so this can't fail.
    let _ = sender.try_send(start);
    match model {
        FoundModel::Local(model) => {
            // Validates the parameters while the response can still have an error status.
            model.infer("", &request.parameters)?;
            let slot = api.catalog.admit(characters).await?;
            spawn(sender, move |events| {
                infer_sentences(api, slot, model, text, request.parameters, events)
            });
        }
        FoundModel::Upstream(upstream, id) => {
            let tokens = upstream
                .complete_streaming(&id, &text, &request.parameters)
                .await?;
            spawn(sender, move |events| forward_tokens(tokens, events));
        }
    }
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok(event.into_sse()), receiver))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

/// Sending fails once the client has closed the connection.
type Events = mpsc::Sender<StreamEvent>;

/// Why the stream stopped early.
enum Stopped {
    /// The client has closed the connection, or no longer reads from it.
    ConnectionClosed,
    Problem(Problem),
}

/// Spawns a task that runs `work` until it ends or the client closes the connection.
fn spawn<F>(sender: Events, work: impl FnOnce(Events) -> F)
where
    F: Future<Output = Result<(), Stopped>> + Send + 'static,
{
    let work = work(sender.clone());
    tokio::spawn(async move {
        let result = tokio::select! {
            result = work => result,
            () = sender.closed() => Err(Stopped::ConnectionClosed),
        };
        if let Err(Stopped::Problem(problem)) = result {
            let _ = sender.send(StreamEvent::Error(problem)).await;
        }
    });
}

async fn infer_sentences(
    api: ApiState,
    slot: Slot,
    model: Arc<dyn Model>,
    text: String,
    parameters: Parameters,
    events: Events,
) -> Result<(), Stopped> {
    let started = Instant::now();
    let sentences = api.catalog.sentences(&slot, &model, text.clone()).await?;
    for (index, input) in sentences.into_iter().enumerate() {
        let output = api
            .catalog
            .infer(&slot, &model, input.clone(), parameters.clone())
            .await?;
        let part = StreamEvent::Part {
            index,
            input,
            output,
        };
        events.send_timeout(part, READ_TIMEOUT).await?;
    }
    let output = api.catalog.infer(&slot, &model, text, parameters).await?;
    drop(slot);
    events
        .send(StreamEvent::Done {
            output,
            elapsed_ms: milliseconds(started),
        })
        .await?;
    Ok(())
}

async fn forward_tokens(mut tokens: TokenStream, events: Events) -> Result<(), Stopped> {
    let started = Instant::now();
    let mut output = String::new();
    while let Some(token) = tokens.next().await {
        let text = token?;
        output.push_str(&text);
        events.send(StreamEvent::Token { text }).await?;
    }
    let output = Output::Text(GeneratedText { text: output });
    events
        .send(StreamEvent::Done {
            output,
            elapsed_ms: milliseconds(started),
        })
        .await?;
    Ok(())
}

impl StreamEvent {
    fn into_sse(self) -> Event {
        let name = match self {
            Self::Start { .. } => "start",
            Self::Part { .. } => "part",
            Self::Token { .. } => "token",
            Self::Done { .. } => "done",
            Self::Error(_) => "error",
        };
        let event = Event::default().event(name);
        // Serializing can't fail: all map keys are strings.
        event
            .json_data(self)
            .unwrap_or_else(|_| Event::default().event("error"))
    }
}

impl From<Problem> for Stopped {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<mpsc::error::SendTimeoutError<StreamEvent>> for Stopped {
    fn from(_: mpsc::error::SendTimeoutError<StreamEvent>) -> Self {
        Self::ConnectionClosed
    }
}

impl From<mpsc::error::SendError<StreamEvent>> for Stopped {
    fn from(_: mpsc::error::SendError<StreamEvent>) -> Self {
        Self::ConnectionClosed
    }
}
