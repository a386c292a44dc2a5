//! Errors as problem details (RFC 9457).

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// An error response, with the media type `application/problem+json`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// The kind of problem, for programs.
    #[serde(rename = "type")]
    #[schema(example = "urn:problem-type:waypost:unknown-model")]
    pub(crate) kind: String,
    /// The kind of problem, for people.
    #[schema(example = "Unknown model")]
    pub(crate) title: &'static str,
    /// The HTTP status code.
    #[serde(serialize_with = "as_number")]
    #[schema(value_type = u16, example = 404)]
    pub(crate) status: StatusCode,
    /// The problem of this request, and how to correct it.
    #[schema(
        example = "There is no model \"sentimnt\". The models are: language, sentiment, keywords."
    )]
    pub(crate) detail: String,
    /// More members, depending on the kind of problem: `models`, `line`, `column`, `limit` …
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub(crate) members: Map<String, Value>,
    /// When to retry, in seconds; sent in the header `retry-after`.
    #[serde(skip)]
    retry_after: Option<u64>,
}

impl Problem {
    pub(crate) fn new(
        status: StatusCode,
        kind: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!("urn:problem-type:waypost:{kind}"),
            title,
            status,
            detail: detail.into(),
            members: Map::new(),
            retry_after: None,
        }
    }

    pub(crate) fn with(mut self, member: &str, value: Value) -> Self {
        self.members.insert(member.to_owned(), value);
        self
    }

    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(crate) fn unknown_model(id: &str, known: &[String]) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown-model",
            "Unknown model",
            format!(
                "There is no model {id:?}. The models are: {}.",
                known.join(", ")
            ),
        )
        .with("models", json!(known))
    }

    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        let message = error.to_string();
        let message = message
            .rsplit_once(" at line ")
            .map_or(message.as_str(), |(message, _)| message);
        let (line, column) = (error.line(), error.column());
        Self::new(
            StatusCode::BAD_REQUEST,
            "malformed-body",
            "Malformed body",
            format!(
                "The body is not valid at line {line}, column {column}: {message}. A valid body is \
                 {{\"model\": \"sentiment\", \"input\": \"some text\"}}."
            ),
        )
        .with("line", json!(line))
        .with("column", json!(column))
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "Body too large",
            format!("The body is larger than {limit} bytes."),
        )
        .with("limit", json!(limit))
    }

    pub(crate) fn unreadable_body(reason: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "unreadable-body",
            "Unreadable body",
            format!("The body can't be read: {reason}."),
        )
    }

    pub(crate) fn empty_input(field: &str) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "empty-input",
            "Empty input",
            format!("`{field}` contains no text, or only white space."),
        )
        .with("field", json!(field))
    }

    pub(crate) fn input_too_long(field: &str, length: usize, limit: usize) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "input-too-long",
            "Input too long",
            format!(
                "`{field}` has {length} characters; the limit of this model is {limit}. Split it \
                 into parts."
            ),
        )
        .with("field", json!(field))
        .with("length", json!(length))
        .with("limit", json!(limit))
    }

    pub(crate) fn too_many_inputs(count: usize, limit: usize) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too-many-inputs",
            "Too many inputs",
            format!("`input` has {count} texts; the limit is {limit} per request."),
        )
        .with("count", json!(count))
        .with("limit", json!(limit))
    }

    pub(crate) fn one_input_only() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "one-input-only",
            "One input only",
            "A stream takes one text: send a string as `input`, or use /api/inference.",
        )
    }

    pub(crate) fn unknown_parameter(model: &str, name: &str, known: &[&str]) -> Self {
        let listed = if known.is_empty() {
            "none".to_owned()
        } else {
            known.join(", ")
        };
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown-parameter",
            "Unknown parameter",
            format!("The model {model} has no parameter {name:?}. Its parameters are: {listed}."),
        )
        .with("parameters", json!(known))
    }

    pub(crate) fn bad_parameter(name: &str, expected: &str, value: &Value) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-parameter",
            "Bad parameter",
            format!("The parameter {name:?} must be {expected}, not {value}."),
        )
        .with("parameter", json!(name))
    }

    pub(crate) fn reserved_parameter(name: &str) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "bad-parameter",
            "Bad parameter",
            format!("The parameter {name:?} is set by this service."),
        )
        .with("parameter", json!(name))
    }

    pub(crate) fn model_failed(model: &str) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "model-failed",
            "The model failed",
            format!(
                "The model {model} failed on this text. This is a bug in the model, not an error in \
                 the request."
            ),
        )
    }

    pub(crate) fn overloaded(retry_after: u64) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Overloaded",
            format!("This instance is busy with other requests. Retry in {retry_after} s."),
        )
        .retry_after(retry_after)
    }

    pub(crate) fn wrong_content_type(given: &str) -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "wrong-content-type",
            "Wrong content type",
            format!("The content type is {given:?}; send JSON as application/json."),
        )
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "No such path",
            format!("There is nothing at {path}. /docs/ lists the paths."),
        )
    }

    pub(crate) fn wrong_method(method: &str, path: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "wrong-method",
            "Wrong method",
            format!("{path} does not support {method}; the header `allow` lists what it supports."),
        )
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
