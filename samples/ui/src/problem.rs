//! Errors as problem details (RFC 9457), like those of the services behind.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::json;

/// A request that this service itself couldn't carry out.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
}

impl Problem {
    /// No instance of the gateway is known, or none that can be used.
    pub(crate) fn no_gateway(why: &waypost::Error) -> Self {
        let detail = format!("The gateway can't be found: {why}.");
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "No gateway",
            detail,
        }
    }

    /// Instances of the gateway are known, but none of those tried answered.
    pub(crate) fn gateway_silent(tried: &[String], why: &str) -> Self {
        let detail = format!("The gateway doesn't answer at {}: {why}.", tried.join(", "));
        Self {
            status: StatusCode::BAD_GATEWAY,
            title: "The gateway doesn't answer",
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
        let detail = format!("The body is larger than {limit} bytes or broke off.");
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
