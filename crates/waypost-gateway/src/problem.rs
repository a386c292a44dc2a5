//! Error responses as problem documents (RFC 9457).

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde_json::{Map, Value, json};

use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::response_body::ResponseBody;
use crate::target::InvalidRequest;

/// The `Retry-After` of a 503, in seconds. Registries announce a new instance sooner than that.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// An error response: `reason` is for programs, `detail` for people.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// A fixed identifier, which the access log shows too.
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    /// Whether the client may repeat the same request.
    pub(crate) retryable: bool,
    extensions: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        let retryable = status == StatusCode::SERVICE_UNAVAILABLE;
        Self {
            status,
            reason,
            detail: detail.into(),
            retryable,
            extensions: Map::new(),
        }
    }

    /// Adds an extension member (RFC 9457, section 3.2).
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Why no instance of a service is available, or why that is unknown.
    pub(crate) fn from_discovery(error: &waypost::Error) -> Self {
        use waypost::Error as E;
        let (status, reason) = match error {
            // Only services with a route get here: the last instance has deregistered, after which
            // some registries no longer list the name.
            E::UnknownService { .. } | E::NoInstances { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "no_instances")
            }
            E::NoneHealthy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "none_healthy"),
            E::Unreachable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "registry_unreachable"),
            E::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "registry_timeout"),
            E::Stale { .. } => (StatusCode::SERVICE_UNAVAILABLE, "registry_stale"),
            E::NotAuthorised { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "registry_not_authorised")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "registry_error"),
        };
        let mut problem = Self::new(status, reason, error.to_string());
        if let Some(provider) = error.provider() {
            problem = problem.with("provider", provider);
        }
        if let Some(age) = error.age() {
            problem = problem.with("age_seconds", age.as_secs_f64());
        }
        problem
    }

    /// Why the last attempt failed.
    pub(crate) fn from_attempt(error: &AttemptError) -> Self {
        let (status, what) = match error.kind {
            AttemptErrorKind::Connect => (
                StatusCode::SERVICE_UNAVAILABLE,
                "connecting to an instance failed",
            ),
            AttemptErrorKind::ConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "connecting to an instance timed out",
            ),
            AttemptErrorKind::NotCallable => {
                (StatusCode::BAD_GATEWAY, "the instance can't be called")
            }
            AttemptErrorKind::Broken => (
                StatusCode::BAD_GATEWAY,
                "the instance closed the connection without a response",
            ),
            AttemptErrorKind::BadResponse => (
                StatusCode::BAD_GATEWAY,
                "the instance did not send a valid HTTP response",
            ),
            AttemptErrorKind::ResponseTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "the instance did not respond in time",
            ),
            AttemptErrorKind::ClientStalled => (
                StatusCode::REQUEST_TIMEOUT,
                "receiving the request body timed out",
            ),
            AttemptErrorKind::ClientBody => (
                StatusCode::BAD_REQUEST,
                "the request body is incomplete or badly framed",
            ),
        };
        let mut problem = Self::new(
            status,
            error.kind.as_str(),
            format!("{what}: {}", error.cause),
        );
        problem.retryable = error.kind.is_unsent();
        problem
    }

    /// Builds the response. After some problems the connection can't be reused.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let mut body = json!({
            // The problem has no type beyond its status (RFC 9457, section 4.2.1).
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "reason": self.reason,
            "retryable": self.retryable,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.extensions);
        }
        let mut response = Response::new(Either::Left(Full::new(Bytes::from(body.to_string()))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if matches!(
            self.status,
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT
        ) {
            // What follows on the connection may be the rest of the rejected request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<InvalidRequest> for Problem {
    fn from(invalid: InvalidRequest) -> Self {
        let (status, reason) = match invalid {
            InvalidRequest::AmbiguousLength => (StatusCode::BAD_REQUEST, "ambiguous_length"),
            InvalidRequest::TransferCoding => (StatusCode::BAD_REQUEST, "transfer_coding"),
            InvalidRequest::Host => (StatusCode::BAD_REQUEST, "host"),
            InvalidRequest::DotSegment => (StatusCode::BAD_REQUEST, "dot_segment"),
            InvalidRequest::Method(_) => (StatusCode::NOT_IMPLEMENTED, "method"),
        };
        Self::new(status, reason, invalid.to_string())
    }
}
