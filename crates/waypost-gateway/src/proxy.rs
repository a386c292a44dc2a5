//! Forwards a request to an instance, retries it if that fails, and adapts the response.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::integration::http::classify;
use waypost::{Balancer, Error, Instance, InstanceId, Lease, Pick};

use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::deadlines::Deadline;
use crate::exchange::Exchange;
use crate::outgoing_headers::OutgoingHeaders;
use crate::outgoing_request::{OutgoingRequest, millis};
use crate::policy::StickyKey;
use crate::problem::Problem;
use crate::request_body::RequestBody;
use crate::response_body::{BodyLimits, BodySource, ProxiedBody, ResponseBody};
use crate::rewrite::Rewriter;
use crate::routes::{Route, Subset};
use crate::service::Service;
use crate::upstream::{Http1, Peer};
use crate::{headers, mirror, response_framing, rewrite, tunnel};

/// The maximum pause before the same instance is tried again.
const MAX_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Forwards requests to instances. Shared by all workers.
pub(crate) struct Proxy {
    /// This gateway's name in `Via`. It is unique, so that loops can be detected.
    pseudonym: String,
    via: [HeaderValue; 3],
    min_upload_rate: Option<u64>,
    tunnels: TaskTracker,
    closing: CancellationToken,
}

/// A response of an instance, before it is adapted for the client.
pub(crate) struct UpstreamResponse {
    response: Response<Incoming>,
    connection: Option<Http1>,
    peer: Arc<Peer>,
    lease: Lease,
    /// The client's side of the tunnel, if the response accepts an upgrade.
    tunnel: Option<OnUpgrade>,
    deadline: Arc<Deadline>,
    /// The authority under which the client knows the gateway.
    public_host: Option<HeaderValue>,
    accepts_trailers: bool,
    /// When the request must have ended, in milliseconds since the worker started.
    ends_at: Option<u64>,
    /// Whether to send a cookie that names the instance.
    sets_cookie: bool,
}

impl Proxy {
    /// Creates a proxy. `tunnels` tracks its upgraded connections, which are closed when `closing`
    /// is cancelled. `min_upload_rate` is in bytes per second.
    pub(crate) fn new(
        min_upload_rate: Option<u64>,
        tunnels: TaskTracker,
        closing: CancellationToken,
    ) -> Self {
        let pseudonym = format!("waypost-{:016x}", fastrand::u64(..));
        let via = ["1.0", "1.1", "2"].map(|version| {
            HeaderValue::try_from(format!("{version} {pseudonym}"))
                .expect("digits and letters make a valid header")
        });
        Self {
            pseudonym,
            via,
            min_upload_rate,
            tunnels,
            closing,
        }
    }

    /// Sends the request to an instance of the route's service, and to others if that fails and a
    /// retry is allowed. `host` is the authority that the client requested.
    ///
    /// # Errors
    /// If there is no instance, or the last attempt failed.
    pub(crate) async fn forward(
        &self,
        route: &Route,
        host: Option<&HeaderValue>,
        request: &mut Request<()>,
        incoming: Incoming,
        exchange: &mut Exchange,
    ) -> Result<UpstreamResponse, Problem> {
        let destination = route.choose().ok_or_else(unresolved)?;
        let (service, subset) = (&destination.service, &destination.subset);
        if headers::has_via(request.headers(), &self.pseudonym) {
            let detail = "the request has passed through this gateway before";
            return Err(Problem::new(StatusCode::LOOP_DETECTED, "loop", detail));
        }
        let limits = &route.limits;
        let announced = incoming.size_hint().lower();
        if announced > limits.body {
            return Err(too_large(limits.body));
        }
        let client = Arc::clone(&exchange.client);
        let worker = client.worker();
        let name = service.name().as_str();
        let unavailable = |error| Problem::from_discovery(&error).with_internal("service", name);
        exchange.service = Some(Arc::clone(service));
        worker.deposit_retry(service.index());
        let balancer = service.ready_balancer().await.map_err(unavailable)?;

        let upgrade = tunnel::requested_protocol(request);
        let tunnel = upgrade.is_some().then(|| hyper::upgrade::on(&mut *request));
        let is_over_http2 = upgrade.is_some() && tunnel::is_over_http2(request.extensions());
        let is_grpc = headers::is_grpc(request.headers());
        let sticky = route.policies.sticky.as_ref();
        let sticky_key = sticky.and_then(|sticky| sticky.key(request.headers()));
        let is_idempotent = request.method().is_idempotent();
        let may_repeat = is_idempotent && limits.max_attempts > 1;
        let (via, id) = (self.via(exchange.version), exchange.request_id.clone());
        // Redirects name the host that the client asked for, which a proxy in between knows.
        let public_host = client.forwarding.public_address(request.headers(), host);
        let mut headers = OutgoingHeaders::new(route, &client, host, via, id);
        headers.upgrade = upgrade.clone();
        headers.identity = exchange.identity.clone();
        headers.prepare(std::mem::take(request.headers_mut()), may_repeat);
        let accepts_trailers = headers.accepts_trailers;
        let replay_limit = if is_idempotent { limits.replay } else { 0 };
        let deadline = client.request_deadline();
        let body = RequestBody::new(incoming, replay_limit, limits.body, &deadline);
        exchange.request_body = Some(body.clone());
        let mut outgoing = OutgoingRequest {
            method: request.method().clone(),
            headers,
            body,
            may_repeat,
            limits,
            is_grpc,
            min_upload_rate: self.min_upload_rate,
            ends_at: limits.total.map(|total| deadline.now() + millis(total)),
            deadline,
            trace: None,
        };

        if let Some(mirror) = &route.mirror
            && upgrade.is_none()
            && let Some(permit) = mirror.choose()
        {
            let copy = mirror::Copy {
                method: outgoing.method.clone(),
                target: route.rewritten(&exchange.uri),
                headers: outgoing.headers.copy(),
                body: outgoing.body.copy(mirror.max_body),
                permit,
            };
            mirror::spawn(Arc::clone(mirror), copy, Arc::clone(worker));
        }

        let mut tried: Vec<InstanceId> = Vec::new();
        loop {
            let lease = {
                let pick = pick(service, balancer, subset, sticky_key, &tried)
                    .map_err(unavailable)?
                    .ok_or_else(|| none_in(subset).with("service", name))?;
                let freshness = pick.snapshot().freshness();
                if freshness.is_stale() {
                    exchange.stale = freshness.age();
                }
                pick.lease()
            };
            if tried.contains(lease.id()) {
                tokio::time::sleep(MAX_RETRY_PAUSE.mul_f64(fastrand::f64())).await;
            }
            let instance = lease.endpoint().instance();
            outgoing.trace = exchange.begin_attempt(instance);
            let peer = worker.upstream().peer(instance);
            let error = match outgoing.send(&peer, &exchange.uri).await {
                Ok(mut attempted) => {
                    service.connection_accepted(lease.id());
                    let response = &attempted.response;
                    exchange.span.attempt_responded(response.status());
                    lease.record(classify(response.status(), response.headers()));
                    let response = &mut attempted.response;
                    check(response, upgrade.as_ref(), is_over_http2, lease.id())?;
                    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
                    let tunnel = tunnel.filter(|_| switches);
                    let sets_cookie =
                        sticky.is_some() && sticky_key.is_none_or(|key| !key.names(instance));
                    let mut response = UpstreamResponse {
                        response: attempted.response,
                        connection: attempted.connection,
                        peer,
                        lease,
                        tunnel,
                        deadline: outgoing.deadline,
                        ends_at: outgoing.ends_at,
                        public_host,
                        accepts_trailers,
                        sets_cookie,
                    };
                    response.detach_if_needed(&outgoing.body);
                    return Ok(response);
                }
                Err(error) => error,
            };
            exchange.attempt_failed(&error);
            if let Some(outcome) = error.kind.outcome() {
                lease.record(outcome);
            }
            if error.kind.is_refusal() {
                service.connection_refused(lease.id());
            }
            let is_safe = error.kind.is_unsent() || (is_idempotent && error.kind.is_broken());
            let may_retry = is_safe
                && outgoing.body.can_be_replayed()
                && exchange.attempts < limits.max_attempts
                && worker.withdraw_retry(service.index());
            if !may_retry {
                return Err(Problem::from_attempt(&error)
                    .with_internal("service", name)
                    .with_internal("instance", lease.id().as_str())
                    .with("attempts", exchange.attempts));
            }
            tried.push(lease.id().clone());
        }
    }

    /// Adapts an instance's response for the client.
    pub(crate) fn respond(
        &self,
        upstream: UpstreamResponse,
        route: &Route,
        mut exchange: Exchange,
    ) -> Response<ResponseBody> {
        let UpstreamResponse {
            mut response,
            connection,
            peer,
            lease,
            tunnel,
            deadline,
            public_host,
            accepts_trailers,
            ends_at,
            sets_cookie,
        } = upstream;
        exchange.response_started(response.status());
        let instance = tunnel.is_some().then(|| hyper::upgrade::on(&mut response));
        let (mut parts, incoming) = response.into_parts();
        let headers = &mut parts.headers;
        // With 426, `Upgrade` lists the protocols that the service requires (RFC 9110, section 15.5.22).
        let protocol = (tunnel.is_some() || parts.status == StatusCode::UPGRADE_REQUIRED)
            .then(|| headers.get(header::UPGRADE).cloned())
            .flatten();
        let via = self.via(parts.version);
        headers::strip_hop_by_hop(headers);
        headers::append_via(headers, via);
        if let Some(id) = &peer.id {
            headers.insert(headers::INSTANCE, id.clone());
        }
        if !route.prefix().is_empty() && rewrite::is_needed(headers) {
            let path = peer.below_path_prefix(route.rewritten(&exchange.uri));
            let rewriter = Rewriter {
                prefix: route.prefix(),
                replacement: route.replacement(),
                instance: &lease,
                host: public_host.as_ref(),
                requested: path.path(),
            };
            rewriter.rewrite(headers);
        }
        if tunnel.is_some() && exchange.version == Version::HTTP_2 {
            parts.status = StatusCode::OK;
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        } else if let Some(protocol) = protocol {
            headers::write_upgrade(headers, protocol);
        }
        if sets_cookie
            && let Some(sticky) = &route.policies.sticky
            && let Some(cookie) = sticky.set_cookie(lease.id(), route.prefix())
        {
            headers.append(header::SET_COOKIE, cookie);
        }
        if accepts_trailers
            && exchange.version == Version::HTTP_11
            && !headers.contains_key(header::TRAILER)
            && incoming.size_hint().exact().is_none()
        {
            headers.insert(header::TRAILER, headers::COMMON_TRAILERS);
        }
        // The version is that of the instance's connection. hyper sets the client's version itself.
        parts.version = Version::HTTP_11;
        if exchange.version == Version::HTTP_10 && incoming.size_hint().exact().is_none() {
            // Only the end of the connection can end the body (RFC 9112, section 9.3). With this
            // version hyper does not promise to keep the connection.
            parts.version = Version::HTTP_10;
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let body = match (tunnel, instance) {
            (Some(client), Some(instance)) => {
                self.spawn_tunnel(client, instance, exchange, lease, route.limits.idle);
                ResponseBody::empty()
            }
            _ => {
                let source = BodySource {
                    incoming,
                    connection,
                    peer,
                    lease,
                };
                let limits = BodyLimits {
                    idle: route.limits.idle,
                    ends_at,
                };
                let body = ProxiedBody::new(source, limits, deadline, exchange);
                ResponseBody::Proxied(Box::new(body))
            }
        };
        Response::from_parts(parts, body)
    }

    // Not inlined: the memory for the tunnel's future would be a part of each request's stack.
    #[cold]
    fn spawn_tunnel(
        &self,
        client: OnUpgrade,
        instance: OnUpgrade,
        exchange: Exchange,
        lease: Lease,
        idle: Duration,
    ) {
        let closing = self.closing.clone();
        let tunnel = tunnel::run(client, instance, exchange, lease, idle, closing);
        self.tunnels.spawn(tunnel);
    }

    fn via(&self, version: Version) -> &HeaderValue {
        let [http_10, http_11, http_2] = &self.via;
        match version {
            Version::HTTP_10 => http_10,
            Version::HTTP_2 => http_2,
            _ => http_11,
        }
    }
}

impl UpstreamResponse {
    /// Spawns a task for a connection that is used in both directions at once. Otherwise the request
    /// would not be read while the client is slow to read the response.
    fn detach_if_needed(&mut self, body: &RequestBody) {
        let is_needed =
            self.response.status() == StatusCode::SWITCHING_PROTOCOLS || body.is_sending();
        if is_needed && let Some(connection) = self.connection.take() {
            connection.detach();
        }
    }
}

/// Rejects a response whose framing is ambiguous, or that switches to a protocol that the client did
/// not request.
fn check(
    response: &mut Response<Incoming>,
    requested: Option<&HeaderValue>,
    is_over_http2: bool,
    instance: &InstanceId,
) -> Result<(), Problem> {
    let problem = if !response_framing::disambiguate(response.headers_mut()) {
        "its Transfer-Encoding is not \"chunked\", or its lengths differ"
    } else if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && !is_requested(requested, response.headers().get(header::UPGRADE))
    {
        "it switches to a protocol that the client did not request"
    } else if is_over_http2 && response.status().is_success() {
        // The client would take it for the beginning of the WebSocket.
        "it does not switch protocols"
    } else {
        return Ok(());
    };
    let error = AttemptError::new(AttemptErrorKind::BadResponse, problem);
    Err(Problem::from_attempt(&error).with_internal("instance", instance.as_str()))
}

fn is_requested(requested: Option<&HeaderValue>, protocol: Option<&HeaderValue>) -> bool {
    match (requested, protocol) {
        (Some(requested), Some(protocol)) => requested
            .as_bytes()
            .eq_ignore_ascii_case(protocol.as_bytes()),
        _ => false,
    }
}

/// The problem of a request whose route names no service that can be resolved.
fn unresolved() -> Problem {
    let detail = "the route has no valid backend; its status says why";
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "backend_not_resolved",
        detail,
    )
}

/// The problem of a request body that is longer than allowed.
fn too_large(limit: u64) -> Problem {
    let detail = format!("the request body is longer than {limit} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
}

/// Picks an instance of the subset: the one named by the client's cookie, if it is usable.
fn pick(
    service: &Service,
    balancer: &Balancer,
    subset: &Subset,
    sticky: Option<StickyKey>,
    tried: &[InstanceId],
) -> Result<Option<Pick>, Error> {
    if let Some(key) = sticky {
        let is_sticky = |instance: &Instance| {
            key.names(instance) && subset.contains(instance) && !tried.contains(instance.id())
        };
        if let Some(pick) = balancer.pick_where(is_sticky)? {
            return Ok(Some(pick));
        }
    }
    if subset.is_all() {
        return service.pick(balancer, tried).map(Some);
    }
    service.pick_where(balancer, tried, |instance| subset.contains(instance))
}

/// The problem of a subset without usable instances.
fn none_in(subset: &Subset) -> Problem {
    let detail = "the service has no usable instance at the moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no_instances", detail)
        .internal_detail(format!("no usable instance has {}", subset.describe()))
}
