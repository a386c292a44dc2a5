//! The client's request body, streamed to an instance and replayed if the request is retried.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// The body of one request, shared by all attempts to send it.
///
/// [`attempt`](Self::attempt) returns a body for each attempt. What it reads from the client is
/// buffered up to `limit` bytes, and the next attempt begins with that. Nothing is read from the
/// client before an instance is ready to receive it.
#[derive(Clone, Debug)]
pub(crate) struct RequestBody(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    hint: SizeHint,
    /// The number of the latest attempt. Bodies of earlier ones that still exist can't read.
    attempt: u32,
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    limit: usize,
    /// More than `limit` bytes were read, so the body can't be replayed.
    over_limit: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
    failed: bool,
    /// Number of bytes read from the client.
    bytes: Arc<AtomicU64>,
    /// Whether the last poll of `incoming` was pending.
    waiting_for_client: bool,
    /// When the present wait began.
    since: Instant,
}

impl RequestBody {
    /// Takes a client's body, of which up to `limit` bytes are buffered for a retry.
    pub(crate) fn new(incoming: Incoming, limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Source {
            hint: incoming.size_hint(),
            ended: incoming.is_end_stream(),
            incoming,
            attempt: 0,
            buffered: Vec::new(),
            buffered_bytes: 0,
            limit,
            over_limit: false,
            trailers: None,
            failed: false,
            bytes: Arc::default(),
            waiting_for_client: false,
            since: Instant::now(),
        })))
    }

    /// The body for one more attempt, from its beginning. Bodies of earlier attempts fail from now
    /// on.
    pub(crate) fn attempt(&self) -> AttemptBody {
        let mut source = self.source();
        source.attempt += 1;
        source.since = Instant::now();
        let hint = source.hint;
        AttemptBody {
            body: self.clone(),
            number: source.attempt,
            position: 0,
            trailers_sent: false,
            hint,
        }
    }

    /// Whether another attempt can send the whole body.
    pub(crate) fn can_be_replayed(&self) -> bool {
        let source = self.source();
        !source.over_limit && !source.failed
    }

    /// Whether reading from the client has failed: the body is incomplete or badly framed.
    pub(crate) fn has_failed(&self) -> bool {
        self.source().failed
    }

    /// The number of bytes read from the client, readable after the body has been dropped.
    pub(crate) fn bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.source().bytes)
    }

    /// Which side has to act next, and since when.
    pub(crate) fn waiting_for(&self) -> (WaitingFor, Instant) {
        let source = self.source();
        let side = if source.waiting_for_client && !source.ended {
            WaitingFor::Client
        } else {
            WaitingFor::Instance
        };
        (side, source.since)
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The side that has to act before a request can proceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitingFor {
    /// The client has to send more of its body.
    Client,
    /// The instance has to read more of the body, or to respond.
    Instance,
}

/// The body that one attempt sends.
#[derive(Debug)]
pub(crate) struct AttemptBody {
    body: RequestBody,
    number: u32,
    position: usize,
    trailers_sent: bool,
    hint: SizeHint,
}

/// Why an attempt could not read the body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the client's request body is incomplete or badly framed")]
    Client(#[source] hyper::Error),
    #[error("superseded by another attempt")]
    Superseded,
}

impl Source {
    fn poll_client(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        if polled.is_ready() || !self.waiting_for_client {
            self.since = Instant::now();
        }
        self.waiting_for_client = polled.is_pending();
        let Poll::Ready(frame) = polled else {
            return Poll::Pending;
        };
        match frame {
            None => self.ended = true,
            Some(Err(error)) => {
                self.failed = true;
                return Poll::Ready(Some(Err(BodyError::Client(error))));
            }
            Some(Ok(ref frame)) => {
                self.buffer(frame);
                self.ended = self.incoming.is_end_stream();
            }
        }
        Poll::Ready(frame.and_then(Result::ok).map(Ok))
    }

    fn buffer(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.buffered_bytes += data.len();
            if self.buffered_bytes > self.limit {
                self.over_limit = true;
                self.buffered = Vec::new();
            }
            if !self.over_limit {
                self.buffered.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }
}

impl Body for AttemptBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut source = this.body.source();
        if source.attempt != this.number {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(data) = source.buffered.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if source.ended && !this.trailers_sent {
            this.trailers_sent = true;
            if let Some(trailers) = source.trailers.clone() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
        }
        let polled = source.poll_client(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.trailers_sent |= frame.is_trailers();
            this.position = source.buffered.len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let source = self.body.source();
        source.ended
            && self.position >= source.buffered.len()
            && (self.trailers_sent || source.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
