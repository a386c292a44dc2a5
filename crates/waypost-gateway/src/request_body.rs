//! The client's body on its way to an instance: streamed, and if need be sent again.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;

/// The body of one request, over all attempts to send it.
///
/// Each attempt gets a handle of its own by [`attempt`](Self::attempt). What a handle reads from
/// the client is kept until it is more than `limit` bytes; the next handle begins with that.
/// Nothing is read from the client before an instance takes it.
#[derive(Clone, Debug)]
pub(crate) struct RequestBody(Arc<Mutex<Source>>);

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    hint: SizeHint,
    /// Which attempt may read; an earlier one that is still around may not.
    attempt: u32,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    limit: usize,
    /// Whether something was read that has not been kept.
    lost: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
    failed: bool,
    /// How many bytes the client has sent.
    bytes: Arc<AtomicU64>,
    /// Whether the body is waiting for the client rather than for the instance.
    starving: bool,
    /// When whoever is waited for became the one.
    since: Instant,
}

impl RequestBody {
    /// Takes over a client's body. Up to `limit` bytes of it are kept, to be sent again.
    pub(crate) fn new(incoming: Incoming, limit: usize) -> Self {
        Self(Arc::new(Mutex::new(Source {
            hint: incoming.size_hint(),
            ended: incoming.is_end_stream(),
            incoming,
            attempt: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            limit,
            lost: false,
            trailers: None,
            failed: false,
            bytes: Arc::default(),
            starving: false,
            since: Instant::now(),
        })))
    }

    /// The body from its beginning, for one more attempt. Earlier handles end in an error.
    pub(crate) fn attempt(&self) -> Attempt {
        let mut source = self.source();
        source.attempt += 1;
        source.since = Instant::now();
        let hint = source.hint;
        Attempt {
            body: self.clone(),
            number: source.attempt,
            position: 0,
            trailers_sent: false,
            hint,
        }
    }

    /// Whether another attempt can send the whole body.
    pub(crate) fn can_be_sent_again(&self) -> bool {
        let source = self.source();
        !source.lost && !source.failed
    }

    /// Whether the client has broken its body off, or framed it wrongly.
    pub(crate) fn has_failed(&self) -> bool {
        self.source().failed
    }

    /// Counts the bytes that the client has sent, also when the body itself has gone.
    pub(crate) fn bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.source().bytes)
    }

    /// Who is waited for, and since when.
    pub(crate) fn waits_for(&self) -> (Wait, Instant) {
        let source = self.source();
        let wait = match source.starving && !source.ended {
            true => Wait::Client,
            false => Wait::Response,
        };
        (wait, source.since)
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has to do something before a request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The client has to send more of its body.
    Client,
    /// The instance has to take more of the body, or to answer.
    Response,
}

/// The body as one attempt sends it.
#[derive(Debug)]
pub(crate) struct Attempt {
    body: RequestBody,
    number: u32,
    position: usize,
    trailers_sent: bool,
    hint: SizeHint,
}

/// Why an attempt could not send the body.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the client's body broke off")]
    Client(#[source] hyper::Error),
    #[error("another attempt has begun")]
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
        if polled.is_ready() || !self.starving {
            self.since = Instant::now();
        }
        self.starving = polled.is_pending();
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
                self.keep(frame);
                self.ended = self.incoming.is_end_stream();
            }
        }
        Poll::Ready(frame.and_then(Result::ok).map(Ok))
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.kept_bytes += data.len();
            if self.kept_bytes > self.limit {
                self.lost = true;
                self.kept = Vec::new();
            }
            if !self.lost {
                self.kept.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }
}

impl Body for Attempt {
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
        if let Some(kept) = source.kept.get(this.position) {
            this.position += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
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
            this.position = source.kept.len();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let source = self.body.source();
        source.ended
            && self.position >= source.kept.len()
            && (self.trailers_sent || source.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}
