//! `POST /api/inference`: runs a model on one text or a list of texts.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::state::{ApiState, MAX_BODY};
use crate::admission::Slot;
use crate::catalog::FoundModel;
use crate::models::{GeneratedText, Model, Output, Parameters, Task};
use crate::problem::Problem;
use crate::upstream::Upstream;

/// The maximum number of texts in one request.
const MAX_INPUTS: usize = 64;

/// The model, its input and its parameters.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InferenceRequest {
    /// The ID of a model, as listed by /api/models.
    #[schema(example = "sentiment")]
    pub(super) model: String,
    /// A text, or a list of up to 64 texts.
    pub(super) input: OneOrMany<String>,
    /// Parameters of the model, by name; /api/models lists the valid ones.
    #[serde(default)]
    #[schema(value_type = Object, required = false)]
    pub(super) parameters: Parameters,
}

/// The result of the model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InferenceResponse {
    #[schema(example = "sentiment")]
    model: String,
    task: Task,
    /// The instance that sent the response.
    #[schema(example = "ai-models-1")]
    served_by: String,
    elapsed_ms: f64,
    /// A list if `input` was one, in the same order.
    output: OneOrMany<Output>,
}

/// One value, or a list of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany<T> {
    #[schema(title = "one")]
    One(T),
    #[schema(title = "many")]
    Many(Vec<T>),
}

/// Run a model
///
/// The response says which instance sent it. Requests for an upstream model are forwarded with
/// their `parameters`, such as `temperature` or `max_tokens`.
#[utoipa::path(
    post, path = "/api/inference", tag = "inference",
    request_body(content = InferenceRequest, examples(
        ("sentiment" = (summary = "The sentiment of a text", value = json!({"model": "sentiment", "input": "What a wonderful day!"}))),
        ("language" = (summary = "The languages of three texts", value = json!({"model": "language", "input": ["Bom dia, como está?", "Guten Morgen, wie geht es?", "おはようございます"]}))),
        ("keywords" = (summary = "The three most important words", value = json!({"model": "keywords", "input": "The registry keeps a lease for each instance. An instance that lets its lease lapse leaves the registry.", "parameters": {"limit": 3}}))),
    )),
    responses(
        (status = OK, description = "The result of the model", body = InferenceResponse),
        (status = BAD_REQUEST, description = "The body is not valid JSON of this schema; `line` and `column` say where", body = Problem, content_type = "application/problem+json"),
        (status = NOT_FOUND, description = "No such model; `models` lists the valid IDs", body = Problem, content_type = "application/problem+json"),
        (status = PAYLOAD_TOO_LARGE, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = UNSUPPORTED_MEDIA_TYPE, description = "The content type is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = UNPROCESSABLE_ENTITY, description = "The input is empty or too long, or a parameter is not valid", body = Problem, content_type = "application/problem+json"),
        (status = BAD_GATEWAY, description = "The upstream server failed", body = Problem, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "The upstream server is unreachable, or this instance is overloaded", body = Problem, content_type = "application/problem+json"),
        (status = GATEWAY_TIMEOUT, description = "The upstream server timed out", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn infer(
    State(api): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<InferenceResponse>, Problem> {
    let request = parse(&headers, body)?;
    let model = api.catalog.find(&request.model).await?;
    let characters = check(&request.input, &model)?;
    let runner = match &model {
        FoundModel::Local(model) => Runner::Local(model, api.catalog.admit(characters).await?),
        FoundModel::Upstream(upstream, id) => Runner::Upstream(upstream, id),
    };
    let started = Instant::now();
    let InferenceRequest {
        input, parameters, ..
    } = request;
    let output = match input {
        OneOrMany::One(text) => OneOrMany::One(infer_text(&api, &runner, text, &parameters).await?),
        OneOrMany::Many(texts) => {
            let mut outputs = Vec::with_capacity(texts.len());
            for text in texts {
                outputs.push(infer_text(&api, &runner, text, &parameters).await?);
            }
            OneOrMany::Many(outputs)
        }
    };
    Ok(Json(InferenceResponse {
        model: model.id().to_owned(),
        task: model.task(),
        served_by: api.instance.to_string(),
        elapsed_ms: milliseconds(started),
        output,
    }))
}

/// Parses the request. A body without a content type is treated as JSON. Other content types are
/// refused, because a form on any web page can send some of them without a CORS preflight.
pub(super) fn parse(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<InferenceRequest, Problem> {
    if let Some(content_type) = headers.get(CONTENT_TYPE) {
        let content_type = content_type.to_str().unwrap_or_default();
        if !is_json(content_type) {
            return Err(Problem::wrong_content_type(content_type));
        }
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::body_too_large(MAX_BODY),
        _ => Problem::unreadable_body(&rejection.body_text()),
    })?;
    serde_json::from_slice(&body).map_err(|error| Problem::malformed(&error))
}

/// Validates the input, so that the models need not. Returns its length in characters.
pub(super) fn check(input: &OneOrMany<String>, model: &FoundModel) -> Result<usize, Problem> {
    match input {
        OneOrMany::One(text) => check_text("input", text, model),
        OneOrMany::Many(texts) if texts.is_empty() => Err(Problem::empty_input("input")),
        OneOrMany::Many(texts) if texts.len() > MAX_INPUTS => {
            Err(Problem::too_many_inputs(texts.len(), MAX_INPUTS))
        }
        OneOrMany::Many(texts) => texts
            .iter()
            .enumerate()
            .map(|(index, text)| check_text(&format!("input[{index}]"), text, model))
            .sum(),
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    let essence = essence.trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

pub(super) fn milliseconds(started: Instant) -> f64 {
    // Rounded to microseconds.
    (started.elapsed().as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

fn check_text(field: &str, text: &str, model: &FoundModel) -> Result<usize, Problem> {
    if text.trim().is_empty() {
        return Err(Problem::empty_input(field));
    }
    let (length, limit) = (text.chars().count(), model.max_characters());
    if length > limit {
        Err(Problem::input_too_long(field, length, limit))
    } else {
        Ok(length)
    }
}

/// The model that runs the texts of one request.
enum Runner<'a> {
    Local(&'a Arc<dyn Model>, Slot),
    Upstream(&'a Upstream, &'a str),
}

async fn infer_text(
    api: &ApiState,
    runner: &Runner<'_>,
    text: String,
    parameters: &Parameters,
) -> Result<Output, Problem> {
    match runner {
        Runner::Local(model, slot) => {
            let parameters = parameters.clone();
            api.catalog.infer(slot, model, text, parameters).await
        }
        Runner::Upstream(upstream, id) => {
            let text = upstream.complete(id, &text, parameters).await?;
            Ok(Output::Text(GeneratedText { text }))
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany<String> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrTexts)
    }
}

/// Deserializes a text or a list of texts. Unlike an untagged enum, it names both in its errors.
struct TextOrTexts;

impl<'de> serde::de::Visitor<'de> for TextOrTexts {
    type Value = OneOrMany<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = list.next_element()? {
            texts.push(text);
        }
        Ok(OneOrMany::Many(texts))
    }
}
