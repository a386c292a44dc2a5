//! The client's request body, streamed to an instance and replayed if the request is retried.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;

use crate::deadlines::Deadline;
use crate::headers;

/// The body of one request, shared by all attempts to send it.
///
/// [`attempt`](Self::attempt) returns a body for each attempt. What it reads from the client is
/// buffered up to `limit` bytes, and the next attempt begins with that. Nothing is read from the
/// client before an instance is ready to receive it.
#[derive(Clone, Debug)]
pub(crate) struct RequestBody(Option<Arc<Mutex<Source>>>);

#[derive(Debug)]
struct Source {
    incoming: Incoming,
    hint: SizeHint,
    /// The number of the latest attempt. Bodies of earlier ones that still exist can't read.
    attempt: u32,
    /// Whether the latest attempt has not dropped its body yet.
    is_sending: bool,
    buffered: Vec<Bytes>,
    buffered_bytes: usize,
    /// How many bytes may be buffered for another attempt.
    replay_limit: usize,
    /// More than `replay_limit` bytes were read, so the body can't be replayed.
    over_limit: bool,
    /// How many bytes a client may send.
    max_bytes: u64,
    trailers: Option<HeaderMap>,
    copy: Option<BodyCopy>,
    ended: bool,
    failure: Option<BodyFailure>,
    /// Number of bytes read from the client.
    bytes: u64,
    /// Whether the last poll of `incoming` was pending.
    waiting_for_client: bool,
    deadline: Arc<Deadline>,
    /// When the first attempt began, and when the current wait began.
    began: u64,
    since: u64,
}

/// A copy of the body that is made while an attempt reads it.
#[derive(Debug)]
struct BodyCopy {
    bytes: BytesMut,
    limit: usize,
    /// Gets the bytes when the body has ended. Dropped if the copy can't be completed.
    done: oneshot::Sender<Bytes>,
}

/// Why the client's body can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFailure {
    /// It is incomplete or badly framed.
    Broken,
    /// It is longer than allowed.
    TooLarge,
}

impl RequestBody {
    /// Takes a client's body of at most `max_bytes`, of which up to `replay_limit` bytes are buffered
    /// for a retry. `deadline` provides the current time.
    pub(crate) fn new(
        incoming: Incoming,
        replay_limit: usize,
        max_bytes: u64,
        deadline: &Arc<Deadline>,
    ) -> Self {
        if incoming.is_end_stream() {
            return Self(None);
        }
        let now = deadline.now();
        Self(Some(Arc::new(Mutex::new(Source {
            hint: incoming.size_hint(),
            ended: false,
            incoming,
            attempt: 0,
            is_sending: false,
            buffered: Vec::new(),
            buffered_bytes: 0,
            replay_limit,
            over_limit: false,
            max_bytes,
            trailers: None,
            copy: None,
            failure: None,
            bytes: 0,
            waiting_for_client: false,
            deadline: Arc::clone(deadline),
            began: now,
            since: now,
        }))))
    }

    /// The body for one more attempt, from its beginning. Bodies of earlier attempts fail from now
    /// on.
    pub(crate) fn attempt(&self) -> AttemptBody {
        let Some(shared) = &self.0 else {
            return AttemptBody(Content::Empty);
        };
        let mut source = lock(shared);
        source.attempt += 1;
        source.is_sending = true;
        source.since = source.deadline.now();
        AttemptBody(Content::Streamed(Streamed {
            source: Arc::clone(shared),
            number: source.attempt,
            position: 0,
            trailers_sent: false,
            hint: source.hint,
        }))
    }

    /// A copy of the body once it was read to its end. It fails if the body is longer than `limit` bytes or
    /// is not read completely.
    pub(crate) fn copy(&self, limit: usize) -> oneshot::Receiver<Bytes> {
        let (done, copied) = oneshot::channel();
        match self.source() {
            Some(mut source) => {
                source.copy = Some(BodyCopy {
                    bytes: BytesMut::new(),
                    limit,
                    done,
                });
            }
            // The receiver may not be used.
            None => drop(done.send(Bytes::new())),
        }
        copied
    }

    /// Whether another attempt can send the whole body.
    pub(crate) fn can_be_replayed(&self) -> bool {
        self.source()
            .is_none_or(|source| !source.over_limit && source.failure.is_none())
    }

    /// Whether the latest attempt has not sent the whole body yet.
    pub(crate) fn is_sending(&self) -> bool {
        self.source().is_some_and(|source| source.is_sending)
    }

    /// Why the client's body could not be read.
    pub(crate) fn failure(&self) -> Option<BodyFailure> {
        self.source().and_then(|source| source.failure)
    }

    /// The number of bytes read from the client.
    pub(crate) fn bytes(&self) -> u64 {
        self.source().map_or(0, |source| source.bytes)
    }

    /// Which side has to act next, and since when.
    pub(crate) fn progress(&self) -> Option<Progress> {
        self.source().map(|source| Progress {
            waits_for_client: source.waiting_for_client && !source.ended,
            is_complete: source.ended,
            since: source.since,
            began: source.began,
            bytes: source.bytes,
        })
    }

    fn source(&self) -> Option<MutexGuard<'_, Source>> {
        self.0.as_deref().map(lock)
    }
}

/// The progress of the body. Times are in milliseconds since the worker started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// The client has to send more of its body. Otherwise the instance has to read more of it, or to
    /// respond.
    pub(crate) waits_for_client: bool,
    /// The client has sent the whole body.
    pub(crate) is_complete: bool,
    /// When the current wait began.
    pub(crate) since: u64,
    /// When the first byte could be sent.
    pub(crate) began: u64,
    /// The number of bytes read from the client.
    pub(crate) bytes: u64,
}

impl Progress {
    /// Whether fewer bytes than `rate` for each whole second have been read in `took` milliseconds.
    pub(crate) fn is_slower_than(&self, rate: u64, took: u64) -> bool {
        self.bytes < rate.saturating_mul(took / 1000)
    }
}

fn lock(source: &Mutex<Source>) -> MutexGuard<'_, Source> {
    source.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body that one attempt sends: empty, or streamed from the client.
#[derive(Debug)]
pub(crate) struct AttemptBody(Content);

#[derive(Debug)]
enum Content {
    Empty,
    /// The body of a request that the gateway makes itself.
    Whole(Bytes),
    Streamed(Streamed),
}

impl AttemptBody {
    /// A body that is in memory.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self(Content::Empty)
        } else {
            Self(Content::Whole(bytes))
        }
    }
}

#[derive(Debug)]
struct Streamed {
    source: Arc<Mutex<Source>>,
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
    #[error("the client's request body is longer than allowed")]
    TooLarge,
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
            self.since = self.deadline.now();
        }
        self.waiting_for_client = polled.is_pending();
        let Poll::Ready(frame) = polled else {
            return Poll::Pending;
        };
        match frame {
            None => {
                self.ended = true;
                self.complete_copy();
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.failure = Some(BodyFailure::Broken);
                Poll::Ready(Some(Err(BodyError::Client(error))))
            }
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::strip_from_trailers(trailers);
                }
                if !self.count(&frame) {
                    self.failure = Some(BodyFailure::TooLarge);
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                self.buffer(&frame);
                self.extend_copy(&frame);
                // Trailers are the last frame. hyper doesn't poll again after them, and until the end is polled,
                // `is_end_stream` may still be false.
                self.ended = frame.is_trailers() || self.incoming.is_end_stream();
                if self.ended {
                    self.complete_copy();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    /// False if the body is too long.
    fn count(&mut self, frame: &Frame<Bytes>) -> bool {
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        self.bytes <= self.max_bytes
    }

    fn extend_copy(&mut self, frame: &Frame<Bytes>) {
        if let (Some(copy), Some(data)) = (&mut self.copy, frame.data_ref()) {
            if copy.bytes.len() + data.len() > copy.limit {
                self.copy = None;
            } else {
                copy.bytes.extend_from_slice(data);
            }
        }
    }

    fn complete_copy(&mut self) {
        if let Some(copy) = self.copy.take() {
            // The receiver may be gone.
            drop(copy.done.send(copy.bytes.freeze()));
        }
    }

    fn buffer(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.buffered_bytes += data.len();
            if self.buffered_bytes > self.replay_limit {
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
        let content = &mut self.get_mut().0;
        let this = match content {
            Content::Empty => return Poll::Ready(None),
            Content::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *content = Content::Empty;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Content::Streamed(this) => this,
        };
        let mut source = lock(&this.source);
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
        let this = match &self.0 {
            Content::Empty => return true,
            Content::Whole(_) => return false,
            Content::Streamed(this) => this,
        };
        let source = lock(&this.source);
        source.ended
            && this.position >= source.buffered.len()
            && (this.trailers_sent || source.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Empty => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(streamed) => streamed.hint,
        }
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let mut source = lock(&self.source);
        if source.attempt == self.number {
            source.is_sending = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_of_an_upload_counts_whole_seconds() {
        for (bytes, rate, took, is_slow) in [
            (0, 240, 999, false),
            (239, 240, 1000, true),
            (240, 240, 1000, false),
            (240, 240, 1999, false),
            (479, 240, 2000, true),
            (480, 240, 2000, false),
            (u64::MAX - 1, u64::MAX, 2000, true),
        ] {
            let progress = Progress {
                waits_for_client: true,
                is_complete: false,
                since: 0,
                began: 0,
                bytes,
            };
            let found = progress.is_slower_than(rate, took);
            assert_eq!(found, is_slow, "{bytes} bytes in {took} ms");
        }
    }

    #[tokio::test]
    async fn a_request_without_a_body_can_be_sent_and_copied_as_it_is() {
        let body = RequestBody(None);
        assert!(body.can_be_replayed() && !body.is_sending());
        assert_eq!((body.bytes(), body.failure()), (0, None));
        assert!(body.progress().is_none());
        assert_eq!(body.copy(0).await.unwrap(), "");
        assert!(body.attempt().is_end_stream());
    }

    #[tokio::test]
    async fn a_body_in_memory_is_one_frame() {
        use http_body_util::BodyExt;
        let mut body = AttemptBody::whole(Bytes::from("hello"));
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert!(body.is_end_stream() && body.frame().await.is_none());
        let empty = AttemptBody::whole(Bytes::new());
        assert!(empty.is_end_stream());
        assert_eq!(empty.size_hint().exact(), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_for_the_client_begins_when_it_has_to_send_more() {
        use futures_util::poll;
        use http_body_util::BodyExt;
        use tokio::io::{AsyncWriteExt, duplex};
        use tokio::time::{Duration, sleep};

        let (mut client, server) = duplex(1024);
        let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
        let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
            // The receiver is there until the end of the test.
            let _ = sender.send(request.into_body());
            std::future::pending::<Result<http::Response<String>, std::convert::Infallible>>()
        });
        let server = hyper_util::rt::TokioIo::new(server);
        let connection = hyper::server::conn::http1::Builder::new();
        let serving = tokio::spawn(connection.serve_connection(server, service));
        let head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 6\r\n\r\n";
        client.write_all(head).await.unwrap();
        let incoming = received.recv().await.unwrap();

        let deadlines = crate::deadlines::Deadlines::new();
        let deadline = deadlines.deadline();
        let pass = async |seconds| {
            sleep(Duration::from_secs(seconds)).await;
            // Reads the clock once.
            assert!(poll!(std::pin::pin!(deadlines.run(|| true))).is_pending());
        };
        let body = RequestBody::new(incoming, 100, 100, &deadline);
        let progress = || body.progress().unwrap();
        let mut attempt = body.attempt();
        assert!(body.is_sending() && body.can_be_replayed());
        assert!(
            !progress().waits_for_client,
            "the instance has to read first"
        );
        client.write_all(b"abc").await.unwrap();
        pass(10).await;
        let frame = attempt.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "abc");
        assert_eq!((progress().since, progress().bytes), (10_000, 3));
        pass(10).await;
        assert_eq!(progress().since, 10_000, "the instance is slow");
        for _ in 0..2 {
            assert!(poll!(attempt.frame()).is_pending());
            assert!(progress().waits_for_client && !progress().is_complete);
            assert_eq!(progress().since, 20_000, "the client is, from now on");
            pass(5).await;
        }
        client.write_all(b"def").await.unwrap();
        let frame = attempt.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "def");
        assert!(progress().is_complete && !progress().waits_for_client);
        assert_eq!((progress().since, progress().bytes), (30_000, 6));
        assert!(attempt.is_end_stream());
        drop(attempt);
        assert!(!body.is_sending());

        // Another attempt gets the same.
        let again = body.attempt();
        assert!(!again.is_end_stream());
        let whole = again.collect().await.unwrap();
        assert_eq!(whole.to_bytes(), "abcdef");
        serving.abort();
    }
}
