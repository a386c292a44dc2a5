//! Timeouts of a connection. A request head must be complete soon after its first byte, so that a
//! client can't hold thousands of connections with a byte now and then. Between requests a
//! connection may be idle for a long time, as clients with connection pools expect. Input that
//! isn't HTTP gets the response of Go's HTTP server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::listener::Stream;
use super::request_line;

/// From the first byte of a request head to its last.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// An idle connection is closed after this long, and at the latest after twice this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// The response of Go's HTTP server to input that it can't parse.
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\n400 Bad Request";

/// What a connection is waiting for. Shared by the stream and the service that answers requests.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionState(Arc<AtomicU8>);

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
    /// Whether bytes have been received since the idle timer was set.
    was_active: bool,
    /// Whether the timer is set for the rest of a head.
    has_head_timer: bool,
    timer: Pin<Box<Sleep>>,
}

impl ConnectionState {
    pub(super) fn request_received(&self) {
        self.0.store(RESPONDING, Relaxed);
    }

    pub(super) fn response_ready(&self) {
        self.0.store(IDLE, Relaxed);
    }

    fn start_reading_head(&self) {
        self.0.store(READING_HEAD, Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Relaxed)
    }
}

impl TimeoutStream {
    pub(super) fn new(stream: Box<dyn Stream>, state: ConnectionState) -> Self {
        Self {
            stream,
            state,
            unread: Bytes::new(),
            has_unanswered_input: false,
            was_active: false,
            has_head_timer: false,
            timer: Box::pin(sleep(IDLE_TIMEOUT)),
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

    /// Copies as many unread bytes as fit into `buffer`.
    fn read_unread(&mut self, buffer: &mut ReadBuf<'_>) {
        let fitting = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(fitting));
    }

    /// Checks the timer while there is no input.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let state = self.state.get();
        // Usually a head arrives in one piece, and this timer is never set.
        if state != READING_HEAD {
            self.has_head_timer = false;
        } else if !self.has_head_timer {
            self.has_head_timer = true;
            self.timer.as_mut().reset(Instant::now() + HEAD_TIMEOUT);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if state == READING_HEAD || (state == IDLE && !self.was_active) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.was_active = false;
            self.timer.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
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
                if buffer.filled().len() > before
                    && self.record_input()
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
        self.has_unanswered_input = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
            // Best effort: the connection is closed anyway.
            let _ = Pin::new(&mut self.stream).poll_write(context, BAD_REQUEST);
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
