//! External authorisation: another service decides whether a request is allowed, as with Envoy's
//! `ext_authz`, nginx's `auth_request` and Traefik's `ForwardAuth`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use tokio::time::{Instant, timeout_at};
use waypost::Outcome;
use waypost::integration::http::classify;

use crate::attempt_error::AttemptError;
use crate::forwarded::Forwarding;
use crate::header_edits::HeaderEdits;
use crate::headers;
use crate::problem::Problem;
use crate::service::Service;
use crate::spans::RequestSpan;
use crate::upstream::{HttpUrl, Upstream, WholeResponse, call};

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// The largest response, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// The number of instances that are tried if a request can't be sent or its connection breaks.
const ATTEMPTS: usize = 3;

/// The authorisation service.
#[derive(Debug)]
pub(crate) enum AuthorisationService {
    Service(Arc<Service>, PathAndQuery),
    Url(HttpUrl),
}

/// The settings of a route.
#[derive(Debug)]
pub(crate) struct ExternalAuth {
    pub(crate) service: AuthorisationService,
    pub(crate) timeout: Duration,
    /// The client's headers that are sent to the authorisation service.
    pub(crate) send_headers: Vec<HeaderName>,
    /// Headers of its response that the route's service gets instead of the client's.
    pub(crate) copy_headers: Vec<HeaderName>,
    /// Whether requests are allowed while the authorisation service fails.
    pub(crate) fail_open: bool,
    /// Whether the last request to the authorisation service failed.
    pub(crate) is_failing: AtomicBool,
}

/// The parts of a client's request that are sent to the authorisation service.
pub(crate) struct ClientRequest<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) uri: &'a Uri,
    pub(crate) host: Option<&'a HeaderValue>,
    pub(crate) id: &'a HeaderValue,
    pub(crate) forwarding: &'a Forwarding,
    pub(crate) span: &'a RequestSpan,
}

/// The decision of the authorisation service.
pub(crate) enum Decision {
    /// The request may be forwarded, with these changes.
    Allowed(HeaderEdits),
    /// The client gets this response.
    Refused(Response<Bytes>),
}

impl ExternalAuth {
    /// `now` is in milliseconds since the worker started, whose connections are `upstream`.
    ///
    /// # Errors
    /// If the authorisation service does not answer.
    pub(crate) async fn ask(
        &self,
        request: &ClientRequest<'_>,
        upstream: &Upstream,
        now: u64,
    ) -> Result<Decision, Problem> {
        let headers = self.headers(request);
        let answer = self.send(headers, upstream, now).await;
        let answer = answer.and_then(|answer| {
            if answer.status.is_server_error() || answer.status.is_informational() {
                Err(format!("the response was {}", answer.status))
            } else {
                Ok(answer)
            }
        });
        self.note(answer.as_ref().err());
        match answer {
            Ok(answer) if answer.status.is_success() => {
                Ok(Decision::Allowed(self.edits(&answer.headers)))
            }
            Ok(answer) if headers::is_grpc(request.headers) => Err(for_grpc_client(answer)),
            Ok(answer) => Ok(Decision::Refused(for_client(answer))),
            Err(_) if self.fail_open => Ok(Decision::Allowed(self.edits(&HeaderMap::new()))),
            Err(cause) => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let detail = "the authorisation service failed";
                Err(Problem::new(status, "external_auth_failed", detail)
                    .internal_detail(format!("{detail}: {cause}")))
            }
        }
    }

    fn headers(&self, request: &ClientRequest<'_>) -> HeaderMap {
        let mut sent = HeaderMap::new();
        let is_sent = |name: &HeaderName| {
            self.send_headers.contains(name)
                || [headers::TRACEPARENT, headers::TRACESTATE].contains(name)
                || headers::is_forwarding_header(name.as_str())
        };
        for (name, value) in request.headers {
            if is_sent(name) {
                sent.append(name.clone(), value.clone());
            }
        }
        request.forwarding.write(&mut sent, request.host, None);
        let uri = request.uri.path_and_query();
        let uri = uri.map_or("/", PathAndQuery::as_str);
        for (name, value) in [
            (FORWARDED_METHOD, request.method.as_str()),
            (FORWARDED_URI, uri),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                sent.insert(name, value);
            }
        }
        sent.insert(headers::REQUEST_ID, request.id.clone());
        if let Some(trace) = request.span.trace_headers() {
            trace.write(&mut sent);
        }
        sent
    }

    async fn send(
        &self,
        headers: HeaderMap,
        upstream: &Upstream,
        now: u64,
    ) -> Result<WholeResponse, String> {
        let deadline = Instant::now() + self.timeout;
        let too_late = || format!("no response within {:?}", self.timeout);
        let request = |target: &PathAndQuery| {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = Uri::from(target.clone());
            *request.headers_mut() = headers.clone();
            request
        };
        let (service, target) = match &self.service {
            AuthorisationService::Service(service, target) => (service, target),
            AuthorisationService::Url(url) => {
                let peer = upstream.peer_of(url);
                let answer = call(&peer, now, request(&url.target), self.timeout, MAX_BODY);
                let answer = timeout_at(deadline, answer).await;
                return answer.map_err(|_| too_late())?.map_err(|error| error.cause);
            }
        };
        let ready = timeout_at(deadline, service.ready_balancer()).await;
        let balancer = ready
            .map_err(|_| too_late())?
            .map_err(|error| error.to_string())?;
        let mut tried = Vec::new();
        loop {
            let pick = service.pick(balancer, &tried).map_err(|e| e.to_string())?;
            let lease = pick.lease();
            let peer = upstream.peer(lease.endpoint().instance());
            let request = request(&peer.below_path_prefix(target.clone()));
            let answer = call(&peer, now, request, self.timeout, MAX_BODY);
            let Ok(answer) = timeout_at(deadline, answer).await else {
                lease.record(Outcome::Failed);
                return Err(too_late());
            };
            match answer {
                Ok(answer) => {
                    lease.record(classify(answer.status, &answer.headers));
                    service.connection_accepted(lease.id());
                    return Ok(answer);
                }
                Err(error) => {
                    let AttemptError { kind, cause } = error;
                    if let Some(outcome) = kind.outcome() {
                        lease.record(outcome);
                    }
                    if kind.is_refusal() {
                        service.connection_refused(lease.id());
                    }
                    tried.push(lease.id().clone());
                    // The authorisation service may get the same request twice.
                    let may_retry = kind.is_unsent() || kind.is_broken();
                    if !may_retry || tried.len() >= ATTEMPTS {
                        return Err(cause);
                    }
                }
            }
        }
    }

    /// Always removes the client's own headers with these names.
    fn edits(&self, answer: &HeaderMap) -> HeaderEdits {
        let mut edits = HeaderEdits {
            remove: self.copy_headers.clone(),
            ..HeaderEdits::default()
        };
        for name in &self.copy_headers {
            let values = answer.get_all(name).iter();
            edits
                .add
                .extend(values.map(|value| (name.clone(), value.clone())));
        }
        edits
    }

    /// Logs the first of several failures, and the first success after them.
    fn note(&self, error: Option<&String>) {
        let was_failing = self.is_failing.load(Ordering::Relaxed);
        if was_failing == error.is_some() {
            return;
        }
        self.is_failing.store(error.is_some(), Ordering::Relaxed);
        let effect = if self.fail_open { "allowed" } else { "refused" };
        match error {
            Some(error) => {
                tracing::warn!(%error, "the authorisation service is failing, requests are {effect}");
            }
            None => tracing::info!("the authorisation service is available again"),
        }
    }
}

/// The refusal of the authorisation service as an error with the same headers. A gRPC client can't follow a
/// redirect to a login page.
fn for_grpc_client(answer: WholeResponse) -> Problem {
    let status = if answer.status.is_redirection() {
        StatusCode::UNAUTHORIZED
    } else {
        answer.status
    };
    let mut headers = answer.headers;
    headers::strip_hop_by_hop(&mut headers);
    headers::remove_where(&mut headers, |name| {
        let name = name.as_str();
        name.starts_with("content-") || name.starts_with("grpc-")
    });
    let detail = "the request was refused by the authorisation service";
    Problem::new(status, "external_auth_refused", detail).headers(headers)
}

/// The response of the authorisation service, adapted for the client.
fn for_client(answer: WholeResponse) -> Response<Bytes> {
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    let mut headers = answer.headers;
    headers::strip_hop_by_hop(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use waypost_testkit::Logs;

    use super::*;

    fn auth(fail_open: bool) -> ExternalAuth {
        ExternalAuth {
            service: AuthorisationService::Url(HttpUrl::parse("http://192.0.2.1").unwrap()),
            timeout: Duration::from_secs(1),
            send_headers: Vec::new(),
            copy_headers: Vec::new(),
            fail_open,
            is_failing: AtomicBool::new(false),
        }
    }

    #[test]
    fn an_outage_of_the_authorisation_service_and_its_end_are_logged_once() {
        for (fail_open, effect) in [
            (false, "requests are refused"),
            (true, "requests are allowed"),
        ] {
            let (logs, _guard) = Logs::take();
            let auth = auth(fail_open);
            let cause = "the cause".to_owned();
            for failure in [None, None, Some(&cause), Some(&cause), None, None] {
                auth.note(failure);
            }
            assert_eq!(logs.lines(&["the cause", effect]).len(), 1);
            assert_eq!(logs.lines(&["available again"]).len(), 1);
            assert_eq!(logs.lines(&["authorisation service"]).len(), 2);
        }
    }

    #[test]
    fn a_grpc_client_gets_the_status_of_a_refusal_and_no_redirect() {
        for (status, expected) in [(302, 401), (401, 401), (403, 403)] {
            let headers = [
                ("x-reason", "1"),
                ("content-type", "text/html"),
                ("content-encoding", "gzip"),
                ("grpc-encoding", "gzip"),
                ("grpc-status", "0"),
                ("keep-alive", "1"),
            ];
            let header = |(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            };
            let answer = WholeResponse {
                status: StatusCode::from_u16(status).unwrap(),
                headers: headers.map(header).into_iter().collect(),
                body: Bytes::new(),
            };
            let problem = for_grpc_client(answer);
            assert_eq!(problem.status.as_u16(), expected);
            let response = problem.into_response(crate::problem::ErrorFormat::Grpc);
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert_ne!(response.headers()["grpc-status"], "0");
            assert_eq!(response.headers()["x-reason"], "1");
            for gone in ["keep-alive", "content-encoding", "grpc-encoding"] {
                assert!(!response.headers().contains_key(gone), "{gone}");
            }
        }
    }
}
