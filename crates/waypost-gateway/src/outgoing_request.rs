//! Sends a request to an instance, within its time limits.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, Request, Response, Uri, header};
use hyper::body::Incoming;

use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::deadlines::Deadline;
use crate::outgoing_headers::OutgoingHeaders;
use crate::request_body::{AttemptBody, BodyFailure, RequestBody};
use crate::routes::Limits;
use crate::spans::TraceHeaders;
use crate::upstream::{Channel, Http1, Peer};

/// The maximum interval between checks of an upload's time limits. Which limit applies can change, since
/// an upload waits for the client and the instance in turn.
const UPLOAD_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// A request that can be sent to several instances, one after the other.
pub(crate) struct OutgoingRequest<'a> {
    pub(crate) method: Method,
    pub(crate) headers: OutgoingHeaders<'a>,
    pub(crate) body: RequestBody,
    /// Whether the request may be repeated after it was sent.
    pub(crate) may_repeat: bool,
    pub(crate) limits: &'a Limits,
    pub(crate) is_grpc: bool,
    /// The time limit of the whole request, in milliseconds since the worker started.
    pub(crate) ends_at: Option<u64>,
    /// The minimum rate of the client's upload, in bytes per second.
    pub(crate) min_upload_rate: Option<u64>,
    pub(crate) deadline: Arc<Deadline>,
    /// The trace headers of the current attempt.
    pub(crate) trace: Option<TraceHeaders>,
}

/// A response, and its HTTP/1 connection, which must be polled to receive the body. An HTTP/2 connection has its
/// own task.
pub(crate) struct AttemptResponse {
    pub(crate) response: Response<Incoming>,
    pub(crate) connection: Option<Http1>,
}

impl OutgoingRequest<'_> {
    /// Sends the request to an instance, whose path is made from the client's `uri` as the route says. An idle
    /// connection that turns out to be closed is replaced.
    ///
    /// # Errors
    /// If there is no response.
    pub(crate) async fn send(
        &mut self,
        peer: &Peer,
        uri: &Uri,
    ) -> Result<AttemptResponse, AttemptError> {
        loop {
            let now = self.deadline.now();
            let mut channel = peer.channel(now, self.limits.connect).await?;
            let is_http2 = matches!(channel, Channel::Http2 { .. });
            let mut request = self.request(peer, is_http2)?;
            // Made for each attempt: a copy of a path is as expensive as a new one.
            let path = peer.below_path_prefix(self.headers.route.rewritten(uri));
            peer.set_target(&mut request, path, is_http2)?;
            self.deadline.set(self.first_check());
            let sent = {
                let mut sending = pin!(channel.send(request));
                poll_fn(|cx| {
                    if let Poll::Ready(sent) = sending.as_mut().poll(cx) {
                        return Poll::Ready(Ok(sent));
                    }
                    self.deadline.register(cx.waker());
                    match self.overdue(now) {
                        Some(error) => Poll::Ready(Err(error)),
                        None => Poll::Pending,
                    }
                })
                .await?
            };
            let error = match sent {
                Ok(response) => {
                    return Ok(AttemptResponse {
                        response,
                        connection: channel.into_http1(),
                    });
                }
                Err(error) => error,
            };
            if let Some(failure) = self.body.failure() {
                let kind = match failure {
                    BodyFailure::Broken => AttemptErrorKind::ClientBody,
                    BodyFailure::TooLarge => AttemptErrorKind::ClientBodyTooLarge,
                };
                return Err(AttemptError::new(kind, error.error.cause));
            }
            let was_unsent = error.unsent.is_some();
            self.take_back(error.unsent);
            if was_unsent && channel.is_reused() && self.body.can_be_replayed() {
                continue;
            }
            if error.has_too_many_headers && peer.expect_many_headers() && self.may_repeat {
                continue;
            }
            return Err(error.error);
        }
    }

    /// Returns an error if the client or the instance has exceeded a time limit, and otherwise sets the deadline
    /// to the next check. `began` is when the attempt began, in milliseconds since the worker started.
    fn overdue(&self, began: u64) -> Option<AttemptError> {
        if !self.deadline.has_passed() {
            return None;
        }
        let now = self.deadline.now();
        let limits = self.limits;
        if self.ends_at.is_some_and(|end| end <= now) {
            return Some(AttemptError::new(
                AttemptErrorKind::ResponseTimeout,
                format!(
                    "the request took longer than {:?}",
                    limits.total.unwrap_or_default()
                ),
            ));
        }
        let progress = self.body.progress();
        let (kind, since, limit) = match progress {
            Some(progress) if progress.waits_for_client && self.is_grpc => {
                // Both sides of a stream may be idle without a limit.
                (AttemptErrorKind::ResponseTimeout, now, limits.first_byte)
            }
            Some(progress) if progress.waits_for_client => (
                AttemptErrorKind::ClientStalled,
                progress.since,
                limits.upload_idle,
            ),
            Some(progress) => (
                AttemptErrorKind::ResponseTimeout,
                progress.since,
                limits.first_byte,
            ),
            None => (AttemptErrorKind::ResponseTimeout, began, limits.first_byte),
        };
        let passed = now.saturating_sub(since);
        if passed >= millis(limit) {
            return Some(AttemptError::new(
                kind,
                format!("nothing received for {limit:?}"),
            ));
        }
        let mut next = Duration::from_millis(millis(limit) - passed);
        if let Some(progress) = progress {
            // Without this limit, a client could occupy a connection by sending a byte now and then.
            let grace = millis(limits.upload_idle);
            let took = now.saturating_sub(progress.began);
            if let Some(rate) = self.min_upload_rate
                && !progress.is_complete
                && !self.is_grpc
                && took > grace
                && progress.is_slower_than(rate, took)
            {
                return Some(AttemptError::new(
                    AttemptErrorKind::ClientStalled,
                    format!("received less than {rate} bytes per second"),
                ));
            }
            if !progress.is_complete {
                next = next.min(UPLOAD_CHECK_INTERVAL).min(limits.upload_idle);
            }
        }
        self.deadline.set(self.until_end(next));
        None
    }

    /// The time until the first check of the time limits.
    fn first_check(&self) -> Duration {
        let limits = self.limits;
        let first = if self.body.progress().is_some() {
            let upload = limits.upload_idle.min(UPLOAD_CHECK_INTERVAL);
            upload.min(limits.first_byte)
        } else {
            limits.first_byte
        };
        self.until_end(first)
    }

    /// The shorter of `time` and the time that is left for the whole request.
    fn until_end(&self, time: Duration) -> Duration {
        match self.ends_at {
            Some(end) => time.min(Duration::from_millis(
                end.saturating_sub(self.deadline.now()),
            )),
            None => time,
        }
    }

    /// The request for one attempt.
    fn request(
        &mut self,
        peer: &Peer,
        is_http2: bool,
    ) -> Result<Request<AttemptBody>, AttemptError> {
        let mut request = Request::new(self.body.attempt());
        *request.method_mut() = self.method.clone();
        let headers = request.headers_mut();
        *headers = self.headers.take();
        // An `http` instance receives the client's host, as in X-Forwarded-Host. With TLS the host
        // selects the certificate and the site, so it has to be the instance's own.
        let host = match (self.headers.route.host(), self.headers.host) {
            (Some(host), _) => Some(host),
            (None, Some(host)) if !peer.uses_tls() => Some(host),
            _ => peer.authority.as_ref(),
        };
        if let Some(host) = host
            && headers.get(header::HOST) != Some(host)
        {
            headers.insert(header::HOST, host.clone());
        }
        if let Some(trace) = &self.trace {
            trace.write(headers);
        }
        if is_http2 {
            headers.remove(header::CONNECTION);
            if headers.contains_key(header::UPGRADE) {
                return Err(AttemptError::new(
                    AttemptErrorKind::NotCallable,
                    "an instance with HTTP/2 can't switch protocols",
                ));
            }
        }
        Ok(request)
    }

    /// Takes the headers back from a request that was not sent, for the next attempt.
    fn take_back(&mut self, unsent: Option<Box<Request<AttemptBody>>>) {
        if let Some(request) = unsent {
            self.headers.put_back(request.into_parts().0.headers);
        }
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
