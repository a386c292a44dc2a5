//! One request on its way to an instance, and if need be to another.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::{ConfigError, InstanceId, Lease};

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::failure::{Failure, FailureKind};
use crate::headers::{Arrival, TrustedProxies};
use crate::problem::Problem;
use crate::request_body::{RequestBody, Wait};
use crate::response_body::{Relay, ResponseBody};
use crate::routes::Route;
use crate::target::Target;
use crate::upstream::Upstream;
use crate::{headers, location, outcome, tunnel};

/// Before the same instance is tried again, up to this long passes.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a request under way is looked at, whether it is overdue.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Forwards requests.
pub(crate) struct Proxy {
    config: Config,
    trusted: TrustedProxies,
    upstream: Upstream,
    /// Our name in `Via`. No other gateway has it, so that a loop is noticed.
    pseudonym: String,
    tunnels: TaskTracker,
    closing: CancellationToken,
}

/// An instance's response, before it is handed on.
pub(crate) struct Answer {
    response: Response<Incoming>,
    lease: Lease,
    /// The client's end of the tunnel that the response opens, if it opens one.
    tunnel: Option<OnUpgrade>,
}

impl Proxy {
    /// A proxy whose tunnels are counted by `tunnels` and end with `closing`.
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

    /// Gets a response from an instance of the route's service.
    pub(crate) async fn forward(
        &self,
        route: &Route,
        target: &Target,
        mut request: Request<Incoming>,
        log: &mut AccessLog,
    ) -> Result<Answer, Problem> {
        if headers::came_via(request.headers(), &self.pseudonym) {
            let detail = "the request has come through this gateway before";
            return Err(Problem::new(StatusCode::LOOP_DETECTED, "loop", detail));
        }
        let service = route.service().as_str();
        let undiscovered = |error| Problem::from_discovery(&error).with("service", service);
        let balancer = route.enter().await.map_err(undiscovered)?;

        let upgrade = tunnel::wanted(request.version(), request.headers());
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (mut parts, incoming) = request.into_parts();
        self.prepare(&mut parts.headers, target, service, log, upgrade.as_ref());
        let repeatable = parts.method.is_idempotent();
        let kept = if repeatable {
            self.config.bounded_replay_limit()
        } else {
            0
        };
        let body = RequestBody::new(incoming, kept);
        log.request_bytes = Some(body.bytes());

        let mut tried: Vec<InstanceId> = Vec::new();
        loop {
            let lease = {
                let pick = route.pick(balancer, &tried).map_err(undiscovered)?;
                let freshness = pick.snapshot().freshness();
                log.stale = freshness.age().filter(|_| freshness.is_stale());
                pick.lease()
            };
            if tried.contains(lease.id()) {
                tokio::time::sleep(PAUSE.mul_f64(fastrand::f64())).await;
            }
            log.attempts += 1;
            log.instance = Some(lease.id().as_str().to_owned());
            let failure = match self.attempt(&parts, &body, target, &lease).await {
                Ok(response) => {
                    route.answered_by(lease.id());
                    lease.record(outcome::of_response(&response));
                    return accept(response, lease, upgrade, client);
                }
                Err(failure) => failure,
            };
            log.cause = Some(format!("{}: {}", failure.kind.as_str(), failure.cause));
            if let Some(outcome) = outcome::of_failure(failure.kind) {
                lease.record(outcome);
            }
            if failure.kind.is_unsent() {
                route.refused_by(lease.id());
            }
            let safe =
                failure.kind.is_unsent() || (repeatable && failure.kind == FailureKind::Broken);
            let again = safe
                && body.can_be_sent_again()
                && log.attempts < self.config.max_attempts
                && route.may_retry();
            if !again {
                return Err(Problem::from_failure(&failure)
                    .with("service", service)
                    .with("instance", lease.id().as_str())
                    .with("attempts", log.attempts));
            }
            tried.push(lease.id().clone());
        }
    }

    /// Turns the instance's response into ours.
    pub(crate) fn hand_on(
        &self,
        answer: Answer,
        target: &Target,
        mut log: AccessLog,
    ) -> Response<ResponseBody> {
        let Answer {
            mut response,
            lease,
            tunnel,
        } = answer;
        log.began_to_answer(response.status());
        let instance = tunnel.is_some().then(|| hyper::upgrade::on(&mut response));
        let (mut parts, incoming) = response.into_parts();
        let switched = parts.headers.get(header::UPGRADE).cloned();
        let headers = &mut parts.headers;
        headers::strip_hop_by_hop(headers);
        headers::write_via(headers, &self.pseudonym);
        if let Ok(id) = HeaderValue::from_str(lease.id().as_str()) {
            headers.insert(headers::INSTANCE, id);
        }
        let elsewhere = headers
            .get(header::LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|to| location::seen_from_outside(to, &lease, target.host.as_deref()))
            .and_then(|location| HeaderValue::from_str(&location).ok());
        if let Some(location) = elsewhere {
            headers.insert(header::LOCATION, location);
        }
        let body = match (tunnel, instance) {
            (Some(client), Some(instance)) => {
                if let Some(protocol) = switched {
                    write_upgrade(headers, protocol);
                }
                let closing = self.closing.clone();
                self.tunnels
                    .spawn(tunnel::run(client, instance, log, lease, closing));
                Either::Left(Full::default())
            }
            _ => Either::Right(Relay::new(incoming, self.config.idle_timeout, log, lease)),
        };
        Response::from_parts(parts, body)
    }

    /// Makes the client's headers ours.
    fn prepare(
        &self,
        headers: &mut HeaderMap,
        target: &Target,
        service: &str,
        log: &AccessLog,
        upgrade: Option<&HeaderValue>,
    ) {
        let trailers = headers::lists(headers, &header::TE, "trailers");
        headers::strip_hop_by_hop(headers);
        // The client was told to go on when its body was first asked for.
        headers.remove(header::EXPECT);
        let arrival = Arrival {
            peer: log.peer,
            host: target.host.as_deref(),
            service,
        };
        headers::write_forwarded(headers, &arrival, &self.trusted);
        headers::write_via(headers, &self.pseudonym);
        headers.insert(headers::REQUEST_ID, log.request_id.clone());
        if let Some(host) = target.host.as_deref().and_then(|host| host.parse().ok()) {
            headers.insert(header::HOST, host);
        }
        if let Some(protocol) = upgrade {
            write_upgrade(headers, protocol.clone());
        } else if trailers {
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
    ) -> Result<Response<Incoming>, Failure> {
        let url = lease.url_for(&target.path);
        let mut request = Request::new(body.attempt());
        *request.method_mut() = client.method.clone();
        *request.uri_mut() = url
            .parse()
            .map_err(|error| Failure::unsent(format!("{url}: {error}")))?;
        *request.headers_mut() = client.headers.clone();
        // A plain instance sees the client's host, as X-Forwarded-Host says it too; behind TLS the
        // host chooses the certificate and the site, so it has to be the instance's own.
        let missing = !client.headers.contains_key(header::HOST);
        if (lease.scheme() == "https" || missing)
            && let Ok(host) = lease.authority().parse()
        {
            request.headers_mut().insert(header::HOST, host);
        }
        let answer = tokio::select! {
            biased;
            answer = self.upstream.send(request) => answer,
            overdue = self.overdue(body) => Err(overdue),
        };
        answer.map_err(|failure| match body.has_failed() {
            true => Failure::new(FailureKind::ClientBody, failure.cause),
            false => failure,
        })
    }

    /// Ends when the client or the instance has been waited for too long.
    async fn overdue(&self, body: &RequestBody) -> Failure {
        let (stalled, first_byte) = (
            self.config.upload_idle_timeout,
            self.config.first_byte_timeout,
        );
        loop {
            let (wait, since) = body.waits_for();
            let (kind, patience) = match wait {
                Wait::Client => (FailureKind::ClientStalled, stalled),
                Wait::Response => (FailureKind::ResponseTimeout, first_byte),
            };
            let now = Instant::now();
            if since + patience <= now {
                return Failure::new(kind, format!("nothing for {patience:?}"));
            }
            // Whom the request waits for changes while its body flows.
            let look_again = now + LOOK_AGAIN.min(stalled);
            tokio::time::sleep_until(look_again.min(since + patience)).await;
        }
    }
}

/// Takes a response as the answer, unless it switches to what nobody asked for.
fn accept(
    response: Response<Incoming>,
    lease: Lease,
    asked: Option<HeaderValue>,
    client: Option<OnUpgrade>,
) -> Result<Answer, Problem> {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer {
            response,
            lease,
            tunnel: None,
        });
    }
    let switched = response.headers().get(header::UPGRADE);
    let same = match (&asked, switched) {
        (Some(asked), Some(to)) => asked.as_bytes().eq_ignore_ascii_case(to.as_bytes()),
        _ => false,
    };
    if !same {
        let failure = Failure::new(
            FailureKind::BadResponse,
            "it switches to a protocol that the client did not ask for",
        );
        return Err(Problem::from_failure(&failure).with("instance", lease.id().as_str()));
    }
    Ok(Answer {
        response,
        lease,
        tunnel: client,
    })
}

fn write_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}
