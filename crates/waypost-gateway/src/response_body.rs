//! The bodies of responses to clients.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};
use waypost::Lease;

use crate::access_log::{AccessLog, EndReason};

/// The body of a response to a client: the gateway's own, or one that an instance sends.
pub(crate) type ResponseBody = Either<Full<Bytes>, ProxiedBody>;

/// The body of an instance's response. Each frame is passed on as soon as it arrives.
///
/// While the body exists, the request counts as in flight on the instance. Dropping it emits the
/// access log; if the response is incomplete, that also closes the connection to the instance.
pub(crate) struct ProxiedBody {
    incoming: Incoming,
    idle_timeout: Duration,
    idle: Pin<Box<Sleep>>,
    /// Whether `idle` is running. It does not run while the client is slow to read, since the body
    /// is not polled then.
    waiting: bool,
    log: AccessLog,
    _lease: Lease,
}

/// Why a response ended early. Its head has been sent by then, so the only way left to report the
/// error is to close the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxiedBodyError {
    #[error("the instance closed the connection in the middle of its response")]
    Broken(#[source] hyper::Error),
    #[error("the instance sent nothing for the idle timeout in the middle of its response")]
    Idle,
}

impl ProxiedBody {
    pub(crate) fn new(
        incoming: Incoming,
        idle_timeout: Duration,
        mut log: AccessLog,
        lease: Lease,
    ) -> Self {
        if incoming.is_end_stream() {
            log.end = EndReason::Complete;
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

impl Body for ProxiedBody {
    type Data = Bytes;
    type Error = ProxiedBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxiedBodyError>>> {
        let this = self.get_mut();
        let Poll::Ready(frame) = Pin::new(&mut this.incoming).poll_frame(cx) else {
            if !this.waiting {
                this.waiting = true;
                this.idle.as_mut().reset(Instant::now() + this.idle_timeout);
            }
            if this.idle.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.log.end = EndReason::IdleTimeout;
            return Poll::Ready(Some(Err(ProxiedBodyError::Idle)));
        };
        this.waiting = false;
        match &frame {
            Some(Ok(frame)) => {
                this.log.response_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.incoming.is_end_stream() {
                    this.log.end = EndReason::Complete;
                }
            }
            Some(Err(error)) => {
                this.log.end = EndReason::UpstreamBroken;
                this.log.cause = Some(error.to_string());
            }
            None => this.log.end = EndReason::Complete,
        }
        Poll::Ready(frame.map(|frame| frame.map_err(ProxiedBodyError::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
