//! Timeouts of a connection. A request head must be complete soon after its first byte, so that a
//! client can't keep thousands of connections open by sending a byte now and then. Between requests a
//! connection may be idle for a long time, as clients with connection pools expect. Input that
//! isn't HTTP, or whose head is too long, gets the response of Go's HTTP server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::listener::Stream;
use super::request_line;
use crate::app::App;

/// From the first byte of a request head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// An idle connection is closed after this long, and at the latest after twice this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Replaces both limits for a client that must send a token and hasn't done so yet.
const UNKNOWN_CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

/// Smaller heads aren't counted in [`MemoryBudget`]. In bytes.
const SMALL_HEAD: usize = 4 * 1024;

/// The memory for large heads that aren't complete yet, of all connections together. In bytes.
const MAX_UNFINISHED_HEADS: usize = 64 * 1024 * 1024;

/// A response of Go's HTTP server to a head that it refuses.
macro_rules! refusal {
    ($status:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
            $status
        )
    };
}

/// The refusal of input that isn't HTTP.
const BAD_REQUEST: &str = refusal!("400 Bad Request");

/// The response of Go's HTTP server for each status with which hyper refuses a head. Go's server has no
/// 414: it limits only the whole head.
const REFUSALS: [(&str, &str); 3] = [
    ("400", BAD_REQUEST),
    ("414", refusal!("414 Request URI Too Long")),
    ("431", refusal!("431 Request Header Fields Too Large")),
];

/// The event for which a connection is waiting. Shared by the stream and the service that handles requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionState(Arc<StateInner>);

#[derive(Debug, Default)]
struct StateInner {
    phase: AtomicU8,
    /// Whether the client has made an allowed request.
    is_authenticated: AtomicBool,
    /// Whether requests need a token.
    needs_token: bool,
    unfinished_heads: Arc<MemoryBudget>,
}

/// Counts the bytes of large heads that aren't complete yet.
#[derive(Debug, Default)]
pub(crate) struct MemoryBudget(AtomicUsize);

/// A part of a [`MemoryBudget`], which is returned when this is dropped.
#[derive(Debug)]
struct BudgetShare {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

const IDLE: u8 = 0;
const READING_HEAD: u8 = 1;
const RESPONDING: u8 = 2;

/// A stream that fails with [`io::ErrorKind::TimedOut`] when the client takes too long.
pub(super) struct TimeoutStream {
    stream: Box<dyn Stream>,
    state: ConnectionState,
    /// Received bytes that didn't fit into the buffer of the reader.
    unread: Bytes,
    /// Whether bytes have been received since the last write.
    has_unanswered_input: bool,
    /// The response to a head that is refused.
    refusal: &'static str,
    /// Whether bytes have been received since the idle timer was set.
    was_active: bool,
    /// Whether the timer is set for the rest of a head.
    has_head_timer: bool,
    timer: Pin<Box<Sleep>>,
    /// The size of the unfinished head so far.
    head_bytes: usize,
    head_share: BudgetShare,
}

impl BudgetShare {
    /// Changes the size of the share. Returns whether the budget suffices.
    fn resize(&mut self, bytes: usize) -> bool {
        let total = &self.budget.0;
        let others = total.fetch_sub(self.bytes, Relaxed) - self.bytes;
        total.fetch_add(bytes, Relaxed);
        self.bytes = bytes;
        others + bytes <= MAX_UNFINISHED_HEADS
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.resize(0);
    }
}

impl ConnectionState {
    pub(super) fn new(app: &App) -> Self {
        Self(Arc::new(StateInner {
            needs_token: app.auth.has_token(),
            unfinished_heads: Arc::clone(&app.unfinished_heads),
            ..StateInner::default()
        }))
    }

    /// Records that the client has made an allowed request.
    pub(super) fn authenticated(&self) {
        self.0.is_authenticated.store(true, Relaxed);
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.0.is_authenticated.load(Relaxed)
    }

    fn idle_timeout(&self) -> Duration {
        self.limit(IDLE_TIMEOUT)
    }

    fn head_timeout(&self) -> Duration {
        self.limit(HEAD_TIMEOUT)
    }

    fn limit(&self, timeout: Duration) -> Duration {
        if self.0.needs_token && !self.is_authenticated() {
            timeout.min(UNKNOWN_CLIENT_TIMEOUT)
        } else {
            timeout
        }
    }

    pub(super) fn request_received(&self) {
        self.0.phase.store(RESPONDING, Relaxed);
    }

    pub(super) fn response_ready(&self) {
        self.0.phase.store(IDLE, Relaxed);
    }

    fn start_reading_head(&self) {
        self.0.phase.store(READING_HEAD, Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.phase.load(Relaxed)
    }
}

impl TimeoutStream {
    pub(super) fn new(stream: Box<dyn Stream>, state: ConnectionState) -> Self {
        let timer = Box::pin(sleep(state.idle_timeout()));
        let head_share = BudgetShare {
            budget: Arc::clone(&state.0.unfinished_heads),
            bytes: 0,
        };
        Self {
            stream,
            state,
            head_bytes: 0,
            head_share,
            unread: Bytes::new(),
            has_unanswered_input: false,
            refusal: BAD_REQUEST,
            was_active: false,
            has_head_timer: false,
            timer,
        }
    }

    /// Records that bytes were received. Returns whether they begin a request head.
    fn record_input(&mut self) -> bool {
        self.was_active = true;
        self.has_unanswered_input = true;
        let begins_head = self.state.get() == IDLE;
        if begins_head {
            self.state.start_reading_head();
        }
        begins_head
    }

    /// Counts received bytes of a head. Returns whether there is memory for it.
    fn count_head(&mut self, received: usize) -> bool {
        if self.state.get() != READING_HEAD {
            self.head_bytes = 0;
            return self.head_share.bytes == 0 || self.head_share.resize(0);
        }
        self.head_bytes += received;
        self.head_bytes <= SMALL_HEAD || self.head_share.resize(self.head_bytes)
    }

    /// Copies as many unread bytes as fit into `buffer`.
    fn read_unread(&mut self, buffer: &mut ReadBuf<'_>) {
        let fitting = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(fitting));
    }

    /// Whether `bytes` is hyper's own response to a head that it refuses. It has no body. When hyper then
    /// closes the connection, the matching one of [`REFUSALS`] is sent instead.
    fn is_response_of_hyper(&mut self, bytes: &[u8]) -> bool {
        let has_body = || bytes.windows(13).any(|part| part == b"Content-Type:");
        if !self.has_unanswered_input || self.state.get() != READING_HEAD || has_body() {
            return false;
        }
        let Some(status) = bytes.strip_prefix(b"HTTP/1.1 ") else {
            return false;
        };
        let mut refusals = REFUSALS.iter();
        let found = refusals.find(|(code, _)| status.starts_with(code.as_bytes()));
        if let Some((_, refusal)) = found {
            self.refusal = refusal;
        }
        found.is_some()
    }

    /// Checks the timer while there is no input.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.state.get();
        // Usually a head arrives in one piece, and this timer is never set.
        if state != READING_HEAD {
            self.has_head_timer = false;
        } else if !self.has_head_timer {
            self.has_head_timer = true;
            self.timer
                .as_mut()
                .reset(Instant::now() + self.state.head_timeout());
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if state == READING_HEAD || (state == IDLE && !self.was_active) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.was_active = false;
            let timeout = self.state.idle_timeout();
            self.timer.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    }
}

impl AsyncRead for TimeoutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            self.read_unread(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.poll_timeout(context),
            Poll::Ready(read) => {
                let begins_head = buffer.filled().len() > before && self.record_input();
                if !self.count_head(buffer.filled().len() - before) {
                    return Poll::Ready(Err(io::ErrorKind::OutOfMemory.into()));
                }
                if begins_head
                    && let Some(encoded) = request_line::percent_encoded(&buffer.filled()[before..])
                {
                    buffer.set_filled(before);
                    self.unread = encoded.into();
                    self.read_unread(buffer);
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for TimeoutStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_response_of_hyper(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.has_unanswered_input = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices
            .first()
            .is_some_and(|head| self.is_response_of_hyper(head))
        {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        self.has_unanswered_input = false;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_unanswered_input && self.state.get() == READING_HEAD {
            self.has_unanswered_input = false;
            let refusal = self.refusal.as_bytes();
            // Best effort: the connection is closed anyway.
            let _ = Pin::new(&mut self.stream).poll_write(context, refusal);
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
