//! Sends copies of requests to another service or version, and discards the responses.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, timeout_at};
use waypost::Outcome;
use waypost::integration::http::classify;

use crate::routes::MirrorTo;
use crate::upstream::begin_call;
use crate::worker::Worker;

/// The header that marks a request as a copy.
const MIRRORED: HeaderName = HeaderName::from_static("x-waypost-mirrored");
/// The most bytes that are read from a response. If it is longer, its connection is closed.
const MAX_RESPONSE: usize = 1024 * 1024;

/// A copy of a request that is being forwarded.
pub(crate) struct Copy {
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    /// Receives the original body once it has been read completely; fails if it is too long or incomplete.
    pub(crate) body: oneshot::Receiver<Bytes>,
    /// Counts the copy as in progress.
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Spawns a task that sends a copy. Errors only count against the instance.
pub(crate) fn spawn(to: Arc<MirrorTo>, copy: Copy, worker: Arc<Worker>) {
    tokio::spawn(async move {
        let Copy {
            method,
            target,
            mut headers,
            body,
            permit: _permit,
        } = copy;
        let Ok(body) = body.await else {
            return;
        };
        headers.insert(MIRRORED, HeaderValue::from_static("true"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        if body.is_empty() {
            headers.remove(header::CONTENT_LENGTH);
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.headers_mut() = headers;
        if let Err(cause) = send(&to, request, &target, &worker).await {
            let service = to.destination.service.name().as_str();
            tracing::debug!(service, cause, "a mirrored request failed");
        }
    });
}

async fn send(
    to: &MirrorTo,
    mut request: Request<Bytes>,
    target: &PathAndQuery,
    worker: &Worker,
) -> Result<(), String> {
    let deadline = Instant::now() + to.timeout;
    let destination = &to.destination;
    let service = &destination.service;
    let late = |timeout: Duration| format!("no response within {timeout:?}");
    let ready = timeout_at(deadline, service.ready_balancer()).await;
    let balancer = ready
        .map_err(|_| late(to.timeout))?
        .map_err(|error| error.to_string())?;
    let pick = if destination.subset.is_all() {
        service.pick(balancer, &[]).map(Some)
    } else {
        service.pick_where(balancer, &[], |instance| {
            destination.subset.contains(instance)
        })
    };
    let pick = pick.map_err(|error| error.to_string())?;
    let lease = pick.ok_or("no usable instance")?.lease();
    let (upstream, now) = (worker.upstream(), worker.deadlines().now());
    let peer = upstream.peer(lease.endpoint().instance());
    *request.uri_mut() = Uri::from(peer.below_path_prefix(target.clone()));
    let sending = begin_call(&peer, now, request, to.timeout);
    let response = match timeout_at(deadline, sending).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            if let Some(outcome) = error.kind.outcome() {
                lease.record(outcome);
            }
            if error.kind.is_refusal() {
                service.connection_refused(lease.id());
            }
            return Err(error.cause);
        }
        Err(_) => {
            lease.record(Outcome::Failed);
            return Err(late(to.timeout));
        }
    };
    lease.record(classify(response.status(), response.headers()));
    // Reading the rest lets the connection be used again.
    let rest = timeout_at(deadline, response.read(&peer, now, MAX_RESPONSE)).await;
    match rest {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.cause),
        Err(_) => Err(late(to.timeout)),
    }
}
