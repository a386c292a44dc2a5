//! Errors as problem details (RFC 9457): what is wrong, where, and what would be right.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// A problem as the client gets it, with the media type `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Names the kind of problem, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:problem-type:waypost:unknown-model")]
    pub(crate) kind: String,
    /// The kind of problem, for people.
    #[schema(example = "Unknown model")]
    pub(crate) title: &'static str,
    /// The HTTP status again.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16, example = 404)]
    pub(crate) status: StatusCode,
    /// What is wrong this time, and what would be right.
    #[schema(
        example = "There is no model \"sentimnt\". The models are: language, sentiment, keywords."
    )]
    pub(crate) detail: String,
    /// Facts of the kind of problem: `models`, `line`, `column`, `limit` …
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) facts: Map<String, Value>,
    /// Seconds after which another try makes sense; told in the header `retry-after`.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn unknown_model(id: &str, known: &[String]) -> Self {
        let detail = format!(
            "There is no model {id:?}. The models are: {}.",
            known.join(", ")
        );
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-model",
            "Unknown model",
            detail,
        )
        .with("models", json!(known))
    }

    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        let what = error.to_string();
        let what = what
            .rsplit_once(" at line ")
            .map_or(what.as_str(), |(what, _)| what);
        let (line, column) = (error.line(), error.column());
        let detail = format!(
            "The body isn't what this takes, at line {line}, column {column}: {what}. \
             Right would be {{\"model\": \"sentiment\", \"input\": \"some text\"}}."
        );
        Self::new(
            StatusCode::BAD_REQUEST,
            "malformed-body",
            "Malformed body",
            detail,
        )
        .with("line", json!(line))
        .with("column", json!(column))
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let detail = format!("The body is larger than {limit} bytes.");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            detail,
        )
        .with("limit", json!(limit))
    }

    pub(crate) fn unreadable_body(why: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unreadable-body",
            "Unreadable body",
            format!("The body can't be read: {why}."),
        )
    }

    pub(crate) fn empty_input(field: &str) -> Self {
        let detail =
            format!("`{field}` holds no text. Send at least one character that isn't a space.");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "empty-input",
            "Empty input",
            detail,
        )
        .with("field", json!(field))
    }

    pub(crate) fn input_too_long(field: &str, length: usize, limit: usize) -> Self {
        let detail = format!(
            "`{field}` has {length} characters; this model takes {limit} at most. Send it in parts."
        );
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "input-too-long",
            "Input too long",
            detail,
        )
        .with("field", json!(field))
        .with("length", json!(length))
        .with("limit", json!(limit))
    }

    pub(crate) fn too_many_inputs(count: usize, limit: usize) -> Self {
        let detail = format!("`input` has {count} texts; one request takes {limit} at most.");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too-many-inputs",
            "Too many inputs",
            detail,
        )
        .with("count", json!(count))
        .with("limit", json!(limit))
    }

    pub(crate) fn one_input_only() -> Self {
        let detail =
            "A streamed answer is for one text: make `input` a string, or ask /api/inference."
                .to_owned();
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "one-input-only",
            "One input only",
            detail,
        )
    }

    pub(crate) fn unknown_parameter(model: &str, name: &str, known: &[&str]) -> Self {
        let known_words = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        let detail =
            format!("The model {model} has no parameter {name:?}. It takes: {known_words}.");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown-parameter",
            "Unknown parameter",
            detail,
        )
        .with("parameters", json!(known))
    }

    pub(crate) fn bad_parameter(name: &str, wanted: &str, got: &Value) -> Self {
        let detail = format!("The parameter {name:?} must be {wanted}, not {got}.");
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-parameter",
            "Bad parameter",
            detail,
        )
        .with("parameter", json!(name))
    }

    pub(crate) fn model_failed(model: &str) -> Self {
        let detail = format!(
            "The model {model} failed on this text. That is a fault of the model, not of the request."
        );
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "model-failed",
            "The model failed",
            detail,
        )
    }

    pub(crate) fn overloaded() -> Self {
        let detail = "All workers of this instance are busy. Try again in a second.".to_owned();
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Overloaded",
            detail,
        )
        .retry_after(1)
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        let detail = format!("There is nothing at {path}. What there is: /docs/ shows it.");
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "No such path",
            detail,
        )
    }

    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        let detail =
            format!("{path} doesn't take {method}; the header `allow` says what it takes.");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "wrong-method",
            "Wrong method",
            detail,
        )
    }

    /// A problem with the upstream server: `status` is what our client gets, `detail` why.
    pub(crate) fn upstream(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: String,
    ) -> Self {
        Self::new(status, kind, title, detail)
    }

    pub(crate) fn with(mut self, name: &str, fact: Value) -> Self {
        self.facts.insert(name.to_owned(), fact);
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    fn new(status: StatusCode, kind: &str, title: &'static str, detail: String) -> Self {
        let kind = format!("urn:problem-type:waypost:{kind}");
        Self {
            kind,
            title,
            status,
            detail,
            facts: Map::new(),
            retry_after: None,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status, self.retry_after);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn as_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}
