//! Forwards a request to an instance, retries it if that fails, and returns the response.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::integration::http::classify;
use waypost::{ConfigError, InstanceId, Lease};

use crate::access_log::AccessLog;
use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::config::Config;
use crate::headers::{ForwardedRequest, TrustedProxies};
use crate::problem::Problem;
use crate::request_body::{RequestBody, WaitingFor};
use crate::response_body::{ProxiedBody, ResponseBody};
use crate::routes::Route;
use crate::target::Target;
use crate::upstream::Upstream;
use crate::{headers, location, tunnel};

/// The maximum pause before the same instance is tried again.
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The longest interval at which a waiting request is checked against its time limits.
const TIMEOUT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Forwards requests to instances.
pub(crate) struct Proxy {
    config: Config,
    trusted: TrustedProxies,
    upstream: Upstream,
    /// This gateway's name in `Via`. It is unique, so that loops can be detected.
    pseudonym: String,
    tunnels: TaskTracker,
    closing: CancellationToken,
}

/// A response of an instance, before it is adapted for the client.
pub(crate) struct UpstreamResponse {
    response: Response<Incoming>,
    lease: Lease,
    /// The client's side of the tunnel, if the response accepts an upgrade.
    tunnel: Option<OnUpgrade>,
}

impl Proxy {
    /// Creates a proxy. `tunnels` tracks its upgraded connections, which are closed when `closing`
    /// is cancelled.
    ///
    /// # Errors
    /// If the CA file can't be read.
    pub(crate) fn new(
        config: Config,
        tunnels: TaskTracker,
        closing: CancellationToken,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            trusted: TrustedProxies(config.trusted_proxies.clone()),
            upstream: Upstream::new(&config)?,
            pseudonym: format!("waypost-{:016x}", fastrand::u64(..)),
            config,
            tunnels,
            closing,
        })
    }

    /// Sends the request to an instance of the route's service, and to others if that fails and a
    /// retry is allowed.
    ///
    /// # Errors
    /// If there is no instance, or the last attempt failed.
    pub(crate) async fn forward(
        &self,
        route: &Route,
        target: &Target,
        mut request: Request<Incoming>,
        log: &mut AccessLog,
    ) -> Result<UpstreamResponse, Problem> {
        if headers::has_via(request.headers(), &self.pseudonym) {
            let detail = "the request has passed through this gateway before";
            return Err(Problem::new(StatusCode::LOOP_DETECTED, "loop", detail));
        }
        let service = route.service().as_str();
        let unavailable = |error| Problem::from_discovery(&error).with("service", service);
        let balancer = route.ready_balancer().await.map_err(unavailable)?;

        let upgrade = tunnel::requested_protocol(request.version(), request.headers());
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, incoming) = request.into_parts();
        self.rewrite_request_headers(&mut parts.headers, target, service, log, upgrade.as_ref());
        let is_idempotent = parts.method.is_idempotent();
        let replay_limit = if is_idempotent {
            self.config.bounded_replay_limit()
        } else {
            0
        };
        let body = RequestBody::new(incoming, replay_limit);
        log.request_bytes = Some(body.bytes());

        let mut tried: Vec<InstanceId> = Vec::new();
        loop {
            let lease = {
                let pick = route.pick(balancer, &tried).map_err(unavailable)?;
                let freshness = pick.snapshot().freshness();
                log.stale = freshness.age().filter(|_| freshness.is_stale());
                pick.lease()
            };
            if tried.contains(lease.id()) {
                tokio::time::sleep(MAX_RETRY_PAUSE.mul_f64(fastrand::f64())).await;
            }
            log.attempts += 1;
            log.instance = Some(lease.id().as_str().to_owned());
            let error = match self.attempt(&parts, &body, target, &lease).await {
                Ok(response) => {
                    route.connection_accepted(lease.id());
                    lease.record(classify(response.status(), response.headers()));
                    return accept(response, lease, upgrade, client);
                }
                Err(error) => error,
            };
            log.cause = Some(format!("{}: {}", error.kind.as_str(), error.cause));
            if let Some(outcome) = error.kind.outcome() {
                lease.record(outcome);
            }
            if error.kind.is_unsent() {
                route.connection_refused(lease.id());
            }
            let is_safe =
                error.kind.is_unsent() || (is_idempotent && error.kind == AttemptErrorKind::Broken);
            let may_retry = is_safe
                && body.can_be_replayed()
                && log.attempts < self.config.max_attempts
                && route.withdraw_retry();
            if !may_retry {
                return Err(Problem::from_attempt(&error)
                    .with("service", service)
                    .with("instance", lease.id().as_str())
                    .with("attempts", log.attempts));
            }
            tried.push(lease.id().clone());
        }
    }

    /// Adapts an instance's response for the client.
    pub(crate) fn respond(
        &self,
        upstream: UpstreamResponse,
        target: &Target,
        mut log: AccessLog,
    ) -> Response<ResponseBody> {
        let UpstreamResponse {
            mut response,
            lease,
            tunnel,
        } = upstream;
        log.response_started(response.status());
        let instance = tunnel.is_some().then(|| hyper::upgrade::on(&mut response));
        let (mut parts, incoming) = response.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned();
        let headers = &mut parts.headers;
        headers::strip_hop_by_hop(headers);
        headers::append_via(headers, &self.pseudonym);
        if let Ok(id) = HeaderValue::from_str(lease.id().as_str()) {
            headers.insert(headers::INSTANCE, id);
        }
        let location = headers
            .get(header::LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| location::rewrite(location, &lease, target.host.as_deref()))
            .and_then(|location| HeaderValue::from_str(&location).ok());
        if let Some(location) = location {
            headers.insert(header::LOCATION, location);
        }
        let body = match (tunnel, instance) {
            (Some(client), Some(instance)) => {
                if let Some(protocol) = protocol {
                    write_upgrade(headers, protocol);
                }
                let closing = self.closing.clone();
                self.tunnels
                    .spawn(tunnel::run(client, instance, log, lease, closing));
                Either::Left(Full::default())
            }
            _ => Either::Right(ProxiedBody::new(
                incoming,
                self.config.idle_timeout,
                log,
                lease,
            )),
        };
        Response::from_parts(parts, body)
    }

    /// Replaces the headers of the client's connection by those for the instance's.
    fn rewrite_request_headers(
        &self,
        headers: &mut HeaderMap,
        target: &Target,
        service: &str,
        log: &AccessLog,
        upgrade: Option<&HeaderValue>,
    ) {
        let accepts_trailers = headers::has_token(headers, &header::TE, "trailers");
        headers::strip_hop_by_hop(headers);
        // hyper sends the client `100 Continue` when the body is first polled.
        headers.remove(header::EXPECT);
        let forwarded = ForwardedRequest {
            peer: log.peer,
            host: target.host.as_deref(),
            service,
        };
        headers::write_forwarded(headers, &forwarded, &self.trusted);
        headers::append_via(headers, &self.pseudonym);
        headers.insert(headers::REQUEST_ID, log.request_id.clone());
        if let Some(host) = target.host.as_deref().and_then(|host| host.parse().ok()) {
            headers.insert(header::HOST, host);
        }
        if let Some(protocol) = upgrade {
            write_upgrade(headers, protocol.clone());
        } else if accepts_trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }

    async fn attempt(
        &self,
        client: &request::Parts,
        body: &RequestBody,
        target: &Target,
        lease: &Lease,
    ) -> Result<Response<Incoming>, AttemptError> {
        let url = lease.url_for(&target.path);
        let mut request = Request::new(body.attempt());
        *request.method_mut() = client.method.clone();
        *request.uri_mut() = url.parse().map_err(|error| {
            AttemptError::new(AttemptErrorKind::NotCallable, format!("{url}: {error}"))
        })?;
        *request.headers_mut() = client.headers.clone();
        // An `http` instance receives the client's host, as in X-Forwarded-Host. With TLS the host
        // selects the certificate and the site, so it has to be the instance's own.
        let is_missing = !client.headers.contains_key(header::HOST);
        if (lease.scheme() == "https" || is_missing)
            && let Ok(host) = lease.authority().parse()
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let result = tokio::select! {
            biased;
            result = self.upstream.send(request) => result,
            timeout = self.timeout(body) => Err(timeout),
        };
        result.map_err(|error| {
            if body.has_failed() {
                AttemptError::new(AttemptErrorKind::ClientBody, error.cause)
            } else {
                error
            }
        })
    }

    /// Completes when the client or the instance exceeds its time limit.
    async fn timeout(&self, body: &RequestBody) -> AttemptError {
        loop {
            let (side, since) = body.waiting_for();
            let (kind, limit) = match side {
                WaitingFor::Client => (
                    AttemptErrorKind::ClientStalled,
                    self.config.upload_idle_timeout,
                ),
                WaitingFor::Instance => (
                    AttemptErrorKind::ResponseTimeout,
                    self.config.first_byte_timeout,
                ),
            };
            let now = Instant::now();
            if since + limit <= now {
                return AttemptError::new(kind, format!("nothing received for {limit:?}"));
            }
            // The side that the request waits for changes while its body is streamed.
            let next_check = now + TIMEOUT_CHECK_INTERVAL.min(self.config.upload_idle_timeout);
            tokio::time::sleep_until(next_check.min(since + limit)).await;
        }
    }
}

/// Accepts a response unless it switches to a protocol that the client did not request.
fn accept(
    response: Response<Incoming>,
    lease: Lease,
    requested: Option<HeaderValue>,
    client: Option<OnUpgrade>,
) -> Result<UpstreamResponse, Problem> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(UpstreamResponse {
            response,
            lease,
            tunnel: None,
        });
    }
    let is_requested = match (&requested, response.headers().get(header::UPGRADE)) {
        (Some(requested), Some(protocol)) => requested
            .as_bytes()
            .eq_ignore_ascii_case(protocol.as_bytes()),
        _ => false,
    };
    if !is_requested {
        let error = AttemptError::new(
            AttemptErrorKind::BadResponse,
            "it switches to a protocol that the client did not request",
        );
        return Err(Problem::from_attempt(&error).with("instance", lease.id().as_str()));
    }
    Ok(UpstreamResponse {
        response,
        lease,
        tunnel: client,
    })
}

fn write_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}
