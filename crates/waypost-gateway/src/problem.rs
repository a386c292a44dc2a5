//! Error responses: problem documents (RFC 9457) for programs, a page for browsers, a status for gRPC.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::target::InvalidRequest;
use crate::{headers, html};

/// The `Retry-After` of a 503, in seconds. Registries announce a new instance sooner than that.
const RETRY_AFTER: u64 = 2;

/// An error response: `reason` is for programs, `detail` for people.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// A fixed identifier, which the access log shows too.
    pub(crate) reason: &'static str,
    pub(crate) detail: String,
    /// What only operators may see. Boxed, so that a problem is small.
    internals: Option<Box<Internals>>,
    /// Whether the client may repeat the same request.
    pub(crate) retryable: bool,
    /// In seconds.
    retry_after: Option<u64>,
    extensions: Map<String, Value>,
    /// Headers of the response, such as `WWW-Authenticate`. Boxed, so that a problem is small.
    headers: Option<Box<HeaderMap>>,
}

/// The parts of an error that name something internal, such as an address, a file, an instance or another
/// route. They are for the log, and for clients that may see them.
#[derive(Clone, Debug, Default)]
struct Internals {
    /// Replaces the public detail.
    detail: Option<String>,
    extensions: Map<String, Value>,
}

/// The formats of an error response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorFormat {
    /// A problem document.
    Json,
    /// A page.
    Html,
    /// A response that consists of trailers only.
    Grpc,
}

impl ErrorFormat {
    /// The format for a request.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        let accepts_html = || {
            headers::find(headers, &header::ACCEPT)
                .and_then(|accept| accept.to_str().ok())
                .is_some_and(|accept| accept.contains("text/html"))
        };
        if matches!(*method, Method::GET | Method::HEAD) && accepts_html() {
            Self::Html
        } else if *method == Method::POST && headers::is_grpc(headers) {
            Self::Grpc
        } else {
            Self::Json
        }
    }
}

impl Problem {
    pub(crate) fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        let retryable = status == StatusCode::SERVICE_UNAVAILABLE;
        Self {
            status,
            reason,
            detail: detail.into(),
            internals: None,
            retryable,
            retry_after: (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER),
            extensions: Map::new(),
            headers: None,
        }
    }

    /// Adds an extension member (RFC 9457, section 3.2).
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the detail for operators. Other clients see only the public detail.
    pub(crate) fn internal_detail(mut self, detail: impl Into<String>) -> Self {
        self.internals.get_or_insert_default().detail = Some(detail.into());
        self
    }

    /// Adds an extension member for operators.
    pub(crate) fn with_internal(mut self, name: &str, value: impl Into<Value>) -> Self {
        let internals = self.internals.get_or_insert_default();
        internals.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// The detail for operators if there is one, otherwise the public detail.
    pub(crate) fn full_detail(&self) -> &str {
        let internals = self.internals.as_ref();
        let detail = internals.and_then(|internals| internals.detail.as_deref());
        detail.unwrap_or(&self.detail)
    }

    /// The same problem with the internals, for a client that may see them.
    pub(crate) fn with_internals(mut self) -> Self {
        if let Some(internals) = self.internals.take() {
            self.extensions.extend(internals.extensions);
            self.detail = internals.detail.unwrap_or(self.detail);
        }
        self
    }

    /// Sets the number of seconds after which the client may try again.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self.retryable = true;
        self
    }

    /// Sets how the client can authenticate (RFC 9110, section 11.6.1).
    pub(crate) fn challenge(self, challenge: &'static str) -> Self {
        let challenge = HeaderValue::from_static(challenge);
        self.header(header::WWW_AUTHENTICATE, challenge)
    }

    /// Sets the path that the client should request instead.
    pub(crate) fn location(self, location: HeaderValue) -> Self {
        self.header(header::LOCATION, location)
    }

    fn header(self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers(HeaderMap::from_iter([(name, value)]))
    }

    /// Sets headers of the response.
    pub(crate) fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers = Some(Box::new(headers));
        self
    }

    /// Why no instance of a service is available, or why that is unknown.
    pub(crate) fn from_discovery(error: &waypost::Error) -> Self {
        use waypost::Error as E;
        const UNKNOWN: &str = "the instances of the service are unknown at the moment";
        let (status, reason, detail) = match error {
            // Only services with a route get here: the last instance has deregistered, after which
            // some registries no longer list the name.
            E::UnknownService { .. } | E::NoInstances { .. } | E::NoMatch { .. } => {
                let detail = "the service has no instance at the moment";
                (StatusCode::SERVICE_UNAVAILABLE, "no_instances", detail)
            }
            E::NoneHealthy { .. } => {
                let detail = "no instance of the service is healthy";
                (StatusCode::SERVICE_UNAVAILABLE, "none_healthy", detail)
            }
            E::Unreachable { .. } => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                (status, "registry_unreachable", UNKNOWN)
            }
            E::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "registry_timeout", UNKNOWN),
            E::Stale { .. } => (StatusCode::SERVICE_UNAVAILABLE, "registry_stale", UNKNOWN),
            E::NotAuthorised { .. } => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                (status, "registry_not_authorised", UNKNOWN)
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "registry_error", UNKNOWN),
        };
        let mut problem = Self::new(status, reason, detail).internal_detail(error.to_string());
        if let Some(provider) = error.provider() {
            problem = problem.with_internal("provider", provider);
        }
        if let Some(age) = error.age() {
            problem = problem.with_internal("age_seconds", age.as_secs_f64());
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
            AttemptErrorKind::Broken | AttemptErrorKind::BrokenReused => (
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
            AttemptErrorKind::ClientBodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the request body is longer than allowed",
            ),
            AttemptErrorKind::Shortage => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the gateway has no resources for another connection",
            ),
        };
        let full = format!("{what}: {}", error.cause);
        let reason = error.kind.as_str();
        let mut problem = if error.kind.is_of_client() {
            Self::new(status, reason, full)
        } else {
            Self::new(status, reason, what).internal_detail(full)
        };
        problem.retryable = error.kind.is_unsent();
        problem
    }

    /// Builds the response. After some problems the connection can't be reused.
    pub(crate) fn into_response(self, format: ErrorFormat) -> Response<Bytes> {
        let mut response = match format {
            ErrorFormat::Json => self.document(),
            ErrorFormat::Html => self.page(),
            ErrorFormat::Grpc => return self.grpc_status(),
        };
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.headers.map(|headers| *headers).unwrap_or_default());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if matches!(
            self.status,
            StatusCode::BAD_REQUEST | StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE
        ) {
            // The next bytes on the connection may be the rest of the rejected request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn title(&self) -> &'static str {
        self.status.canonical_reason().unwrap_or_default()
    }

    fn document(&self) -> Response<Bytes> {
        let mut body = json!({
            // The problem has no type beyond its status (RFC 9457, section 4.2.1).
            "type": "about:blank",
            "title": self.title(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "reason": self.reason,
            "retryable": self.retryable,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.extensions.clone());
        }
        with_content(body.to_string(), "application/problem+json")
    }

    fn page(&self) -> Response<Bytes> {
        let similar = self.extensions.get("similar_services");
        let similar = similar.and_then(Value::as_array).into_iter().flatten();
        let links: String = similar
            .filter_map(Value::as_str)
            .map(|name| format!("<li><a href=\"/{0}/\">{0}</a></li>", html::escape(name)))
            .collect();
        let suggestions = if links.is_empty() {
            String::new()
        } else {
            format!("<p>Similar names:</p><ul>{links}</ul>")
        };
        let retry = if self.retryable {
            "<p>Trying again in a few seconds may help.</p>"
        } else {
            ""
        };
        let title = format!("{} {}", self.status.as_u16(), self.title());
        let content = format!(
            "<h1>{title}</h1><p>{}</p>{suggestions}{retry}<p><small>{}</small></p>",
            html::escape(&self.detail),
            self.reason
        );
        with_content(html::page(&title, &content), "text/html; charset=utf-8")
    }

    /// As gRPC over HTTP/2 specifies for a response without messages ("Trailers-Only").
    fn grpc_status(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        let headers = response.headers_mut();
        headers.clone_from(self.headers.as_deref().unwrap_or(&HeaderMap::new()));
        let kind = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert("grpc-status", HeaderValue::from(self.grpc_code()));
        let message = format!("{}: {}", self.reason, self.detail);
        let message = percent_encoding::utf8_percent_encode(&message, GRPC_MESSAGE).to_string();
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert("grpc-message", message);
        }
        response
    }

    /// The code that clients derive from the HTTP status, or a more specific one.
    fn grpc_code(&self) -> u16 {
        const INTERNAL: u16 = 13;
        match self.status {
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::FORBIDDEN => 7,
            StatusCode::NOT_FOUND | StatusCode::NOT_IMPLEMENTED => 12,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => 8,
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => 4,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => 14,
            _ => INTERNAL,
        }
    }
}

/// Characters that must be encoded in `grpc-message`.
const GRPC_MESSAGE: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%');

fn with_content(body: String, kind: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

impl From<InvalidRequest> for Problem {
    fn from(invalid: InvalidRequest) -> Self {
        let (status, reason) = match invalid {
            InvalidRequest::AmbiguousLength => (StatusCode::BAD_REQUEST, "ambiguous_length"),
            InvalidRequest::BareLineFeed => (StatusCode::BAD_REQUEST, "bare_line_feed"),
            InvalidRequest::TransferCoding => (StatusCode::BAD_REQUEST, "transfer_coding"),
            InvalidRequest::Host => (StatusCode::BAD_REQUEST, "host"),
            InvalidRequest::DotSegment => (StatusCode::BAD_REQUEST, "dot_segment"),
            InvalidRequest::Method(_) => (StatusCode::NOT_IMPLEMENTED, "method"),
        };
        Self::new(status, reason, invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use waypost::{ProviderError, ProviderErrorKind, ServiceName};

    use super::*;

    #[test]
    fn a_grpc_client_gets_the_code_that_fits_the_status() {
        for (status, code) in [
            (401, 16_u16),
            (403, 7),
            (404, 12),
            (501, 12),
            (413, 8),
            (429, 8),
            (408, 4),
            (504, 4),
            (502, 14),
            (503, 14),
            (400, 13),
            (500, 13),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let response = Problem::new(status, "a_reason", "").into_response(ErrorFormat::Grpc);
            assert_eq!(response.status(), StatusCode::OK);
            let found = &response.headers()["grpc-status"];
            assert_eq!(found, HeaderValue::from(code), "{status}");
        }
    }

    #[test]
    fn a_failure_of_the_registry_has_the_status_of_its_cause() {
        let after = Duration::from_secs(5);
        for (kind, status, reason) in [
            (ProviderErrorKind::Unreachable, 503, "registry_unreachable"),
            (
                ProviderErrorKind::TimedOut { after },
                504,
                "registry_timeout",
            ),
            (
                ProviderErrorKind::NotAuthorised,
                500,
                "registry_not_authorised",
            ),
            (ProviderErrorKind::Rejected, 500, "registry_error"),
        ] {
            let error = ProviderError::new("consul at 192.0.2.1:8500", kind, "the cause");
            let problem = Problem::from_discovery(&error.into());
            assert_eq!((problem.status.as_u16(), problem.reason), (status, reason));
            assert!(!problem.detail.contains("consul"), "{}", problem.detail);
            assert!(problem.full_detail().contains("consul"));
            let public = document(problem.clone());
            assert_eq!(public.get("provider"), None);
            let internal = document(problem.with_internals());
            assert_eq!(internal["provider"], "consul at 192.0.2.1:8500");
        }
    }

    #[test]
    fn a_service_without_a_usable_instance_has_a_reason_of_its_own() {
        let service: ServiceName = "orders".parse().unwrap();
        let age = Duration::from_millis(1500);
        let provider: Arc<str> = "consul".into();
        for (error, reason) in [
            (
                waypost::Error::UnknownService {
                    service: service.clone(),
                    provider: Arc::clone(&provider),
                    age,
                },
                "no_instances",
            ),
            (
                waypost::Error::NoInstances {
                    service: service.clone(),
                    provider: Arc::clone(&provider),
                    age,
                },
                "no_instances",
            ),
            (
                waypost::Error::NoneHealthy {
                    service: service.clone(),
                    provider: Arc::clone(&provider),
                    age,
                    instances: 2,
                },
                "none_healthy",
            ),
            (
                waypost::Error::NoMatch {
                    service: service.clone(),
                    provider: Arc::clone(&provider),
                    age,
                    wanted: "tag".into(),
                    available: "none".into(),
                },
                "no_instances",
            ),
        ] {
            let problem = Problem::from_discovery(&error);
            assert_eq!((problem.status.as_u16(), problem.reason), (503, reason));
            assert_eq!(document(problem.clone()).get("age_seconds"), None);
            let internal = document(problem.with_internals());
            assert_eq!(internal["age_seconds"], 1.5, "{error}");
        }
    }

    #[test]
    fn a_failed_attempt_has_the_status_of_its_cause() {
        use AttemptErrorKind as Kind;
        for (kind, status, retryable) in [
            (Kind::Connect, 503, true),
            (Kind::ConnectTimeout, 504, true),
            (Kind::NotCallable, 502, true),
            (Kind::Shortage, 503, true),
            (Kind::Broken, 502, false),
            (Kind::BrokenReused, 502, false),
            (Kind::BadResponse, 502, false),
            (Kind::ResponseTimeout, 504, false),
            (Kind::ClientStalled, 408, false),
            (Kind::ClientBody, 400, false),
            (Kind::ClientBodyTooLarge, 413, false),
        ] {
            let problem = Problem::from_attempt(&AttemptError::new(kind, "at 192.0.2.1"));
            let found = (problem.status.as_u16(), problem.retryable);
            assert_eq!(found, (status, retryable), "{kind:?}");
            let is_of_client = (400..500).contains(&status);
            assert_eq!(problem.detail.contains("192.0.2.1"), is_of_client);
            assert!(problem.full_detail().contains("192.0.2.1"));
        }
    }

    #[test]
    fn a_document_and_a_page_say_the_same() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let problem = Problem::new(status, "none_healthy", "no <healthy> instance")
            .with("similar_services", serde_json::json!(["a&b"]));
        let found = document(problem.clone());
        let expected = json!({
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "no <healthy> instance",
            "reason": "none_healthy",
            "retryable": true,
            "similar_services": ["a&b"],
        });
        assert_eq!(found, expected);
        let response = problem.into_response(ErrorFormat::Html);
        let kind = &response.headers()[header::CONTENT_TYPE];
        assert_eq!(kind, "text/html; charset=utf-8");
        let page = String::from_utf8(response.into_body().to_vec()).unwrap();
        for part in [
            "503 Service Unavailable",
            "no &lt;healthy&gt; instance",
            "<a href=\"/a&amp;b/\">a&amp;b</a>",
            "Trying again",
            "none_healthy",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        let problem = Problem::new(StatusCode::NOT_FOUND, "no_route", "");
        let page = problem.into_response(ErrorFormat::Html).into_body();
        let page = String::from_utf8(page.to_vec()).unwrap();
        for part in ["Trying again", "Similar names"] {
            assert!(!page.contains(part), "{part} in {page}");
        }
    }

    #[test]
    fn the_headers_of_a_response_follow_from_its_status() {
        for (status, retry_after, closes) in [
            (400, None, true),
            (404, None, false),
            (408, None, true),
            (413, None, true),
            (500, None, false),
            (503, Some("2"), false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let response = Problem::new(status, "a_reason", "").into_response(ErrorFormat::Json);
            assert_eq!(response.status(), status);
            let header = |name: HeaderName| {
                let value = response.headers().get(name)?;
                value.to_str().ok()
            };
            assert_eq!(header(header::CACHE_CONTROL), Some("no-store"));
            assert_eq!(header(header::RETRY_AFTER), retry_after, "{status}");
            assert_eq!(header(header::CONNECTION), closes.then_some("close"));
            let kind = header(header::CONTENT_TYPE);
            assert_eq!(kind, Some("application/problem+json"));
        }
    }

    #[test]
    fn the_format_is_the_one_that_the_client_reads() {
        let browser = (header::ACCEPT, "application/xhtml+xml, text/html;q=0.9");
        let grpc = (header::CONTENT_TYPE, "application/grpc+proto");
        for (method, (name, value), format) in [
            (Method::GET, browser.clone(), ErrorFormat::Html),
            (Method::HEAD, browser.clone(), ErrorFormat::Html),
            (Method::POST, browser, ErrorFormat::Json),
            (Method::GET, (header::ACCEPT, "*/*"), ErrorFormat::Json),
            (Method::POST, grpc.clone(), ErrorFormat::Grpc),
            (Method::GET, grpc, ErrorFormat::Json),
        ] {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert_eq!(
                ErrorFormat::of(&method, &headers),
                format,
                "{method} {value}"
            );
        }
    }

    #[test]
    fn a_grpc_message_is_percent_encoded() {
        let problem =
            Problem::new(StatusCode::NOT_FOUND, "no_route", "100 %\nor é").challenge("Bearer");
        let response = problem.into_response(ErrorFormat::Grpc);
        let headers = response.headers();
        assert_eq!(headers["grpc-message"], "no_route: 100 %25%0Aor %C3%A9");
        assert_eq!(headers[header::CONTENT_TYPE], "application/grpc");
        assert_eq!(headers[header::WWW_AUTHENTICATE], "Bearer");
    }

    fn document(problem: Problem) -> Value {
        let response = problem.into_response(ErrorFormat::Json);
        serde_json::from_slice(&response.into_body()).unwrap()
    }
}
