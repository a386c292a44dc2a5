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
use crate::request_body::{AttemptBody, BodyFailure, Progress, RequestBody};
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
            let limits = self.time_limits();
            let first = limits.first_check(self.deadline.now(), self.body.progress().is_some());
            self.deadline.set(first);
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
        let progress = self.body.progress();
        match (self.time_limits()).check(self.deadline.now(), began, progress) {
            Ok(next) => {
                self.deadline.set(next);
                None
            }
            Err(error) => Some(error),
        }
    }

    fn time_limits(&self) -> TimeLimits<'_> {
        TimeLimits {
            limits: self.limits,
            is_grpc: self.is_grpc,
            ends_at: self.ends_at,
            min_upload_rate: self.min_upload_rate,
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

/// The time limits of an attempt. Times are in milliseconds since the worker started.
#[derive(Clone, Copy)]
struct TimeLimits<'a> {
    limits: &'a Limits,
    is_grpc: bool,
    /// The end of the whole request.
    ends_at: Option<u64>,
    min_upload_rate: Option<u64>,
}

impl TimeLimits<'_> {
    /// The time until the first check.
    fn first_check(&self, now: u64, has_body: bool) -> Duration {
        let limits = self.limits;
        let first = if has_body {
            let upload = limits.upload_idle.min(UPLOAD_CHECK_INTERVAL);
            upload.min(limits.first_byte)
        } else {
            limits.first_byte
        };
        self.until_end(now, first)
    }

    /// The time until the next check of an attempt that began at `began`.
    ///
    /// # Errors
    /// If the client or the instance has exceeded a limit.
    fn check(
        &self,
        now: u64,
        began: u64,
        progress: Option<Progress>,
    ) -> Result<Duration, AttemptError> {
        let limits = self.limits;
        if self.ends_at.is_some_and(|end| end <= now) {
            return Err(AttemptError::new(
                AttemptErrorKind::ResponseTimeout,
                format!(
                    "the request took longer than {:?}",
                    limits.total.unwrap_or_default()
                ),
            ));
        }
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
            return Err(AttemptError::new(
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
                return Err(AttemptError::new(
                    AttemptErrorKind::ClientStalled,
                    format!("received less than {rate} bytes per second"),
                ));
            }
            if !progress.is_complete {
                next = next.min(UPLOAD_CHECK_INTERVAL).min(limits.upload_idle);
            }
        }
        Ok(self.until_end(now, next))
    }

    /// The shorter of `time` and the time that is left for the whole request.
    fn until_end(&self, now: u64, time: Duration) -> Duration {
        match self.ends_at {
            Some(end) => time.min(Duration::from_millis(end.saturating_sub(now))),
            None => time,
        }
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// `first_byte` is 20 s and `upload_idle` 5 s.
    fn limits() -> Limits {
        Limits {
            first_byte: Duration::from_secs(20),
            upload_idle: Duration::from_secs(5),
            ..Limits::new(&Config::default())
        }
    }

    fn upload(waits_for_client: bool, since: u64, bytes: u64) -> Option<Progress> {
        Some(Progress {
            waits_for_client,
            is_complete: false,
            since,
            began: 1000,
            bytes,
        })
    }

    /// The next check in milliseconds, or the error of an attempt that began after a second.
    fn check(
        limits: &TimeLimits<'_>,
        now: u64,
        progress: Option<Progress>,
    ) -> Result<u64, AttemptErrorKind> {
        let next = limits.check(now, 1000, progress);
        next.map(millis).map_err(|error| error.kind)
    }

    #[test]
    fn the_side_that_has_to_act_is_the_one_that_is_late() {
        use AttemptErrorKind::{ClientStalled, ResponseTimeout};
        let limits = &limits();
        let http = TimeLimits {
            limits,
            is_grpc: false,
            ends_at: None,
            min_upload_rate: None,
        };
        let whole = Some(Progress {
            waits_for_client: false,
            is_complete: true,
            since: 3000,
            began: 1000,
            bytes: 0,
        });
        for (now, progress, expected) in [
            // Without a body, from the beginning of the attempt.
            (1000, None, Ok(20_000)),
            (20_999, None, Ok(1)),
            (21_000, None, Err(ResponseTimeout)),
            // From the last byte of the body.
            (21_000, whole, Ok(2000)),
            (22_999, whole, Ok(1)),
            (23_000, whole, Err(ResponseTimeout)),
            // The instance reads no more of the body.
            (4000, upload(false, 4000, 0), Ok(1000)),
            (23_500, upload(false, 4000, 0), Ok(500)),
            (24_000, upload(false, 4000, 0), Err(ResponseTimeout)),
            // The client sends no more of it.
            (4000, upload(true, 4000, 0), Ok(1000)),
            (8500, upload(true, 4000, 0), Ok(500)),
            (9000, upload(true, 4000, 0), Err(ClientStalled)),
        ] {
            assert_eq!(check(&http, now, progress), expected, "{now} {progress:?}");
        }
        let grpc = TimeLimits {
            is_grpc: true,
            ..http
        };
        for (now, progress, expected) in [
            (900_000, upload(true, 4000, 0), Ok(1000)),
            (24_000, upload(false, 4000, 0), Err(ResponseTimeout)),
            (21_000, None, Err(ResponseTimeout)),
        ] {
            assert_eq!(check(&grpc, now, progress), expected, "{now} {progress:?}");
        }
    }

    #[test]
    fn the_whole_request_has_an_end() {
        use AttemptErrorKind::ResponseTimeout;
        let limits = &limits();
        let total = TimeLimits {
            limits,
            is_grpc: false,
            ends_at: Some(10_000),
            min_upload_rate: None,
        };
        assert_eq!(total.first_check(1000, false), Duration::from_secs(9));
        assert_eq!(check(&total, 3000, None), Ok(7000));
        assert_eq!(check(&total, 9999, upload(true, 9999, 0)), Ok(1));
        assert_eq!(check(&total, 10_000, None), Err(ResponseTimeout));
        let no_end = TimeLimits {
            ends_at: None,
            ..total
        };
        assert_eq!(no_end.first_check(1000, false), Duration::from_secs(20));
        assert_eq!(no_end.first_check(1000, true), Duration::from_secs(1));
    }

    #[test]
    fn an_upload_has_a_minimum_rate_after_a_while() {
        use AttemptErrorKind::ClientStalled;
        let limits = &limits();
        let http = TimeLimits {
            limits,
            is_grpc: false,
            ends_at: None,
            min_upload_rate: Some(100),
        };
        for (now, bytes, expected) in [
            // Five seconds after it began at 1000.
            (6000, 0, Ok(1000)),
            (6001, 499, Err(ClientStalled)),
            (6001, 500, Ok(1000)),
            (101_000, 9999, Err(ClientStalled)),
            (101_000, 10_000, Ok(1000)),
        ] {
            let progress = upload(true, now, bytes);
            assert_eq!(check(&http, now, progress), expected, "{now} {bytes}");
        }
        let slow = upload(true, 101_000, 0);
        for lenient in [
            TimeLimits {
                is_grpc: true,
                ..http
            },
            TimeLimits {
                min_upload_rate: None,
                ..http
            },
        ] {
            assert_eq!(check(&lenient, 101_000, slow), Ok(1000));
        }
        let complete = slow.map(|progress| Progress {
            waits_for_client: false,
            is_complete: true,
            ..progress
        });
        assert_eq!(check(&http, 101_000, complete), Ok(20_000));
    }
}
