//! An instance's response on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};
use waypost::Lease;

use crate::access_log::{AccessLog, End};

/// What the gateway answers with: bytes of its own, or an instance's response.
pub(crate) type ResponseBody = Either<Full<Bytes>, Relay>;

/// Hands each piece of a response on at once. While it lives the instance counts the request as
/// in flight; when it goes, the access log is written, and a response that is not finished takes
/// its connection to the instance with it.
pub(crate) struct Relay {
    incoming: Incoming,
    idle_timeout: Duration,
    idle: Pin<Box<Sleep>>,
    /// Whether the instance has been waited for since `idle` was set. While the client is slow to
    /// take what there is, nobody asks, and the instance's silence doesn't count.
    waiting: bool,
    log: AccessLog,
    _lease: Lease,
}

/// Why a response ended too early. By then its head is long gone, so all that is left is to break
/// the connection off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error("the instance broke its response off")]
    Broken(#[source] hyper::Error),
    #[error("the instance fell silent in the middle of its response")]
    Idle,
}

impl Relay {
    pub(crate) fn new(
        incoming: Incoming,
        idle_timeout: Duration,
        mut log: AccessLog,
        lease: Lease,
    ) -> Self {
        if incoming.is_end_stream() {
            log.end = End::Complete;
        }
        let idle = Box::pin(tokio::time::sleep(idle_timeout));
        Self {
            incoming,
            idle_timeout,
            idle,
            waiting: false,
            log,
            _lease: lease,
        }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = RelayError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RelayError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            if !this.waiting {
                this.waiting = true;
                this.idle.as_mut().reset(Instant::now() + this.idle_timeout);
            }
            if this.idle.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.log.end = End::IdleTimeout;
            return Poll::Ready(Some(Err(RelayError::Idle)));
        };
        this.waiting = false;
        match &frame {
            Some(Ok(frame)) => {
                this.log.response_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.incoming.is_end_stream() {
                    this.log.end = End::Complete;
                }
            }
            Some(Err(error)) => {
                this.log.end = End::UpstreamBroken;
                this.log.cause = Some(error.to_string());
            }
            None => this.log.end = End::Complete,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(RelayError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
