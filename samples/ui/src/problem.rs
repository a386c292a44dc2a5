//! Errors as problem details (RFC 9457).

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// An error response of this service itself, as opposed to one of the models.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
}

impl Problem {
    /// There is no instance of the gateway to call.
    pub(crate) fn no_gateway(error: &waypost::Error) -> Self {
        let detail = format!("The gateway can't be found: {error}.");
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "No gateway",
            detail,
        }
    }

    /// The call to the gateway failed, at each of the addresses tried.
    pub(crate) fn gateway_unreachable(tried: &[String], cause: &str) -> Self {
        let detail = format!(
            "The gateway did not respond at {}: {cause}.",
            tried.join(", ")
        );
        Self {
            status: StatusCode::BAD_GATEWAY,
            title: "The gateway did not respond",
            detail,
        }
    }

    pub(crate) fn no_such_path(path: &str) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            title: "No such path",
            detail: format!("There is nothing at {path}."),
        }
    }

    pub(crate) fn body_too_large(limit: usize) -> Self {
        let detail =
            format!("The body is larger than {limit} bytes, or the connection was closed early.");
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            title: "Body too large",
            detail,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body =
            json!({"title": self.title, "status": self.status.as_u16(), "detail": self.detail});
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
