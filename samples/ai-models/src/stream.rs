//! `POST /api/inference/stream`: the answer as server-sent events, each part as soon as there is one.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{Stream, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::api::Api;
use crate::catalog::Chosen;
use crate::inference::{OneOrMany, check, milliseconds, parse};
use crate::models::{GeneratedText, Model, Output, Parameters, Task};
use crate::problem::Problem;
use crate::upstream::Tokens;

/// Parts that may wait for a slow reader before the model has to wait for it too.
const AHEAD: usize = 16;

/// The events of a streamed answer, in this order: one `start`, then `part`s or `token`s, then one
/// `done` or one `error`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum StreamEvent {
    /// `start`: the answer begins.
    Start {
        model: String,
        task: Task,
        served_by: String,
    },
    /// `part`: what a local model found in one sentence.
    Part {
        index: usize,
        input: String,
        output: Output,
    },
    /// `token`: the next piece of what an upstream model writes.
    Token { text: String },
    /// `done`: what the model found in the whole text.
    Done { output: Output, elapsed_ms: f64 },
    /// `error`: the answer breaks off here.
    Error(Problem),
}

/// Ask a model and get its answer in parts.
///
/// The events are `start`, then `part` for each sentence (local models) or `token` for each piece
/// (upstream models), then `done` with the answer to the whole text, or `error`. Hanging up stops the work.
#[utoipa::path(
    post, path = "/api/inference/stream", tag = "inference",
    request_body(content = crate::inference::InferenceRequest, example = json!({"model": "sentiment", "input": "The room was lovely. The breakfast was awful! Still, we might come back."})),
    responses(
        (status = OK, description = "Server-sent events", body = StreamEvent, content_type = "text/event-stream"),
        (status = BAD_REQUEST, description = "The body isn't JSON of the right form; `line` and `column` say where", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "No such model; `models` lists those there are", body = Problem, content_type = "application/problem+json"),
        (status = UNPROCESSABLE_ENTITY, description = "The input is empty, too long or a list, or a parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = BAD_GATEWAY, description = "The upstream server failed before its answer began", body = Problem, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "The upstream server can't be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stream(
    State(api): State<Api>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let request = parse(body)?;
    let model = api.catalog.choose(&request.model).await?;
    check(&request.input, &model)?;
    let OneOrMany::One(text) = request.input else {
        return Err(Problem::one_input_only());
    };

    let (sender, receiver) = mpsc::channel(AHEAD);
    let start = StreamEvent::Start {
        model: model.id().to_owned(),
        task: model.task(),
        served_by: api.instance.to_string(),
    };
    // The channel is new and has room, so this can't fail; it comes before any part.
    let _ = sender.try_send(start);
    match model {
        Chosen::Local(model) => {
            // A wrong parameter is known before the first sentence, and is worth a proper status.
            model.infer("", &request.parameters)?;
            spawn(sender, move |parts| {
                by_sentence(api, model, text, request.parameters, parts)
            });
        }
        Chosen::Upstream(upstream, id) => {
            let tokens = upstream
                .ask_streaming(&id, &text, &request.parameters)
                .await?;
            spawn(sender, move |parts| by_token(tokens, parts));
        }
    }
    let events = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let event = receiver.recv().await?;
        Some((Ok(event.into_sse()), receiver))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Where the parts of an answer go. Sending fails once the reader has hung up.
type Parts = mpsc::Sender<StreamEvent>;

/// The reader has hung up, or the answer ended in a problem.
enum Stop {
    HungUp,
    Problem(Problem),
}

/// Does the work in a task of its own, which ends with its last part or when the reader hangs up.
fn spawn<F>(sender: Parts, work: impl FnOnce(Parts) -> F)
where
    F: Future<Output = Result<(), Stop>> + Send + 'static,
{
    let work = work(sender.clone());
    tokio::spawn(async move {
        let ended = tokio::select! {
            ended = work => ended,
            () = sender.closed() => Err(Stop::HungUp),
        };
        if let Err(Stop::Problem(problem)) = ended {
            let _ = sender.send(StreamEvent::Error(problem)).await;
        }
    });
}

async fn by_sentence(
    api: Api,
    model: Arc<dyn Model>,
    text: String,
    parameters: Parameters,
    parts: Parts,
) -> Result<(), Stop> {
    let started = Instant::now();
    let sentences = api.catalog.sentences(&model, text.clone()).await?;
    for (index, input) in sentences.into_iter().enumerate() {
        let output = api
            .catalog
            .infer(&model, input.clone(), parameters.clone())
            .await?;
        parts
            .send(StreamEvent::Part {
                index,
                input,
                output,
            })
            .await?;
    }
    let output = api.catalog.infer(&model, text, parameters).await?;
    parts
        .send(StreamEvent::Done {
            output,
            elapsed_ms: milliseconds(started),
        })
        .await?;
    Ok(())
}

async fn by_token(mut tokens: Tokens, parts: Parts) -> Result<(), Stop> {
    let started = Instant::now();
    let mut whole = String::new();
    while let Some(token) = tokens.next().await {
        let text = token?;
        whole.push_str(&text);
        parts.send(StreamEvent::Token { text }).await?;
    }
    let output = Output::Text(GeneratedText { text: whole });
    parts
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
        // Strings, numbers and maps with string keys always have a JSON form.
        event
            .json_data(self)
            .unwrap_or_else(|_| Event::default().event("error"))
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

impl From<mpsc::error::SendError<StreamEvent>> for Stop {
    fn from(_: mpsc::error::SendError<StreamEvent>) -> Self {
        Self::HungUp
    }
}
