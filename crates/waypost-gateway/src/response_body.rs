//! The bodies of responses to clients.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::Version;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use waypost::Lease;

use crate::deadlines::Deadline;
use crate::exchange::Exchange;
use crate::gzip_body::GzipBody;
use crate::headers;
use crate::stream_info::EndReason;
use crate::upstream::{Http1, Peer, poll_frame};

/// The body of a response to a client.
pub(crate) enum ResponseBody {
    /// A complete body from the gateway itself.
    Full(Option<Bytes>),
    /// A stream from the gateway itself.
    Stream(BoxStream<'static, Bytes>),
    /// The body of an instance's response.
    Proxied(Box<ProxiedBody>),
    /// The same, compressed.
    Compressed(Box<GzipBody<ProxiedBody>>),
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self::Full(None)
    }

    /// Compresses the body of an instance's response. `level` is 1 to 9.
    pub(crate) fn compressed(self, level: u32) -> Self {
        match self {
            Self::Proxied(body) => Self::Compressed(Box::new(GzipBody::new(*body, level))),
            other => other,
        }
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl From<String> for ResponseBody {
    fn from(text: String) -> Self {
        Self::from(Bytes::from(text))
    }
}

/// The body of an instance's response. Each frame is passed on as soon as it arrives.
///
/// While the body exists, the request counts as in flight on the instance. Dropping it records the
/// exchange; if the response is incomplete, that also closes the connection to the instance.
pub(crate) struct ProxiedBody {
    incoming: Incoming,
    /// The connection that the body comes from, unless it has a task of its own.
    connection: Option<Http1>,
    peer: Arc<Peer>,
    limits: BodyLimits,
    deadline: Arc<Deadline>,
    /// Whether `deadline` is running. It does not run while the client is slow to read, since the body
    /// is not polled then.
    is_waiting: bool,
    /// Returned by the next poll.
    failure: Option<hyper::Error>,
    exchange: Exchange,
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

/// The parts of which a [`ProxiedBody`] is built.
pub(crate) struct BodySource {
    pub(crate) incoming: Incoming,
    pub(crate) connection: Option<Http1>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) lease: Lease,
}

/// The time limits of a body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    /// How long the instance may send nothing.
    pub(crate) idle: Duration,
    /// When it must have ended, in milliseconds since the worker started.
    pub(crate) ends_at: Option<u64>,
}

impl ProxiedBody {
    pub(crate) fn new(
        source: BodySource,
        limits: BodyLimits,
        deadline: Arc<Deadline>,
        exchange: Exchange,
    ) -> Self {
        let mut body = Self {
            incoming: source.incoming,
            connection: source.connection,
            peer: source.peer,
            limits,
            deadline,
            is_waiting: false,
            failure: None,
            exchange,
            _lease: source.lease,
        };
        if body.incoming.is_end_stream() {
            body.complete();
        }
        body
    }

    /// How long the instance may send nothing from now on.
    fn time_left(&self) -> Duration {
        let BodyLimits { idle, ends_at } = self.limits;
        match ends_at {
            Some(end) => idle.min(Duration::from_millis(
                end.saturating_sub(self.deadline.now()),
            )),
            None => idle,
        }
    }

    /// Called when the whole body has arrived.
    fn complete(&mut self) {
        self.exchange.end = EndReason::Complete;
        if let Some(connection) = self.connection.take() {
            self.peer.release(connection, self.deadline.now());
        }
    }

    fn fail(&mut self, end: EndReason) {
        self.exchange.end = end;
        if self.exchange.version == Version::HTTP_10 {
            // The client takes the end of the connection for the end of the body, so a missing part can
            // only be reported by a reset.
            self.exchange.client.reset_when_closed();
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
        if let Some(error) = this.failure.take() {
            return Poll::Ready(Some(Err(ProxiedBodyError::Broken(error))));
        }
        let Poll::Ready(frame) = poll_frame(&mut this.incoming, &mut this.connection, cx) else {
            if !this.is_waiting {
                this.is_waiting = true;
                this.deadline.set(this.time_left());
                this.deadline.register(cx.waker());
            }
            if !this.deadline.has_passed() {
                return Poll::Pending;
            }
            this.fail(EndReason::IdleTimeout);
            return Poll::Ready(Some(Err(ProxiedBodyError::Idle)));
        };
        this.is_waiting = false;
        Poll::Ready(match frame {
            Some(Ok(mut frame)) => {
                this.exchange.response_bytes +=
                    frame.data_ref().map_or(0, |data| data.len() as u64);
                let is_last = frame.is_trailers() || this.incoming.is_end_stream();
                if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_from_trailers(trailers);
                }
                if is_last {
                    this.complete();
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                this.exchange.cause = Some(error.to_string());
                this.fail(EndReason::UpstreamBroken);
                // On an error, hyper drops what it has not written yet; if it has to wait first, it
                // writes it.
                this.failure = Some(error);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {
                this.complete();
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = ProxiedBodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxiedBodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => {
                let piece = pieces.as_mut();
                let piece = futures_util::Stream::poll_next(piece, cx);
                piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Proxied(body) => Pin::new(&mut **body).poll_frame(cx),
            Self::Compressed(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(_) => false,
            Self::Proxied(body) => body.is_end_stream(),
            Self::Compressed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
            Self::Proxied(body) => body.size_hint(),
            Self::Compressed(body) => body.size_hint(),
        }
    }
}
