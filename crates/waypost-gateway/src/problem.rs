//! Answers that say what went wrong, in the form of RFC 9457.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use serde_json::{Map, Value, json};

use crate::failure::{Failure, FailureKind};
use crate::response_body::ResponseBody;
use crate::target::Refused;

/// When a client may ask again after a 503, in seconds. Registries tell of a new instance in less.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// A refusal or failure, with its reason for programs and its detail for people.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// One word, for programs and for the access log.
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    /// Whether the same request may be sent again as it is.
    pub(crate) retryable: bool,
    more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        let retryable = status == StatusCode::SERVICE_UNAVAILABLE;
        Self {
            status,
            reason,
            detail: detail.into(),
            retryable,
            more: Map::new(),
        }
    }

    /// Adds a member of ours to the answer.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// Why a service has nobody to answer, or why we can't tell.
    pub(crate) fn from_discovery(error: &waypost::Error) -> Self {
        use waypost::Error as E;
        let (status, reason) = match error {
            // Only names that are known get here: the last instance has left, and the registry
            // has forgotten the name with it.
            E::UnknownService { .. } | E::NoInstances { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "no_instances")
            }
            E::NoneHealthy { .. } => (StatusCode::SERVICE_UNAVAILABLE, "none_healthy"),
            E::Unreachable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "registry_unreachable"),
            E::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "registry_timeout"),
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

    /// Why the last attempt got no response.
    pub(crate) fn from_failure(failure: &Failure) -> Self {
        let (status, what) = match failure.kind {
            FailureKind::Connect => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no instance took the connection",
            ),
            FailureKind::ConnectTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "no instance took the connection in time",
            ),
            FailureKind::Unsent => (StatusCode::BAD_GATEWAY, "the instance can't be called"),
            FailureKind::Broken => (
                StatusCode::BAD_GATEWAY,
                "the instance broke the connection before it answered",
            ),
            FailureKind::BadResponse => (
                StatusCode::BAD_GATEWAY,
                "the instance's answer is no HTTP response",
            ),
            FailureKind::ResponseTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "the instance did not answer in time",
            ),
            FailureKind::ClientStalled => (
                StatusCode::REQUEST_TIMEOUT,
                "the request's body did not come in time",
            ),
            FailureKind::ClientBody => (
                StatusCode::BAD_REQUEST,
                "the request's body broke off or is framed wrongly",
            ),
        };
        let mut problem = Self::new(
            status,
            failure.kind.as_str(),
            format!("{what}: {}", failure.cause),
        );
        problem.retryable = failure.kind.is_unsent();
        problem
    }

    /// The answer. After some problems the connection can't be used any more.
    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let mut body = json!({
            // The type says no more than the status does (RFC 9457, section 4.2.1).
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "reason": self.reason,
            "retryable": self.retryable,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.more);
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
            // What follows on the connection may be the rest of what was refused.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let (status, reason) = match refused {
            Refused::AmbiguousLength => (StatusCode::BAD_REQUEST, "ambiguous_length"),
            Refused::TransferCoding => (StatusCode::BAD_REQUEST, "transfer_coding"),
            Refused::Host => (StatusCode::BAD_REQUEST, "host"),
            Refused::DotSegment => (StatusCode::BAD_REQUEST, "dot_segment"),
            Refused::Method(_) => (StatusCode::NOT_IMPLEMENTED, "method"),
        };
        Self::new(status, reason, refused.to_string())
    }
}
