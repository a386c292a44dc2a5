//! How long a connection may keep silent. Half a request must become a whole one soon, so that
//! nobody can hold thousands of connections with a byte now and then; a connection between two
//! requests may stay for long, as clients with pools expect. Who talks no HTTP at all is told so.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::door::Stream;
use super::request_line;

/// From the first byte of a request's head to its last.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// After this long without a byte a connection is closed, and at the latest after twice that.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// What Go's server says to what is no request.
const UNREADABLE: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Connection: close\r\n\r\n400 Bad Request";

/// What a connection is doing. It is told by those who answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Doing(Arc<AtomicU8>);

const NOTHING: u8 = 0;
const SENDING_HEAD: u8 = 1;
const WAITING_FOR_ANSWER: u8 = 2;

/// A connection that is closed when its client takes too long.
pub(super) struct Patient {
    stream: Box<dyn Stream>,
    doing: Doing,
    /// What has been received but didn't fit where it was wanted.
    left: Bytes,
    /// Whether nothing has been sent since something came.
    unanswered: bool,
    /// Whether a byte came since the timer was set for an idle connection.
    heard: bool,
    /// Whether the timer is set for the rest of a head.
    awaits_head: bool,
    timer: Pin<Box<Sleep>>,
}

impl Doing {
    pub(super) fn answering(&self) {
        self.0.store(WAITING_FOR_ANSWER, Relaxed);
    }

    pub(super) fn answered(&self) {
        self.0.store(NOTHING, Relaxed);
    }
}

impl Patient {
    pub(super) fn new(stream: Box<dyn Stream>, doing: Doing) -> Self {
        Self {
            stream,
            doing,
            left: Bytes::new(),
            unanswered: false,
            heard: false,
            awaits_head: false,
            timer: Box::pin(sleep(IDLE)),
        }
    }

    /// Something came. Is it the beginning of a head?
    fn hear(&mut self) -> bool {
        self.heard = true;
        self.unanswered = true;
        let begins = self.doing.0.load(Relaxed) == NOTHING;
        // Mostly the whole head has come, and the next thing that happens is that it is answered.
        if begins {
            self.doing.0.store(SENDING_HEAD, Relaxed);
        }
        begins
    }

    /// Hands out as much as fits of what is left.
    fn hand_out(&mut self, buffer: &mut ReadBuf<'_>) {
        let fitting = self.left.len().min(buffer.remaining());
        buffer.put_slice(&self.left.split_to(fitting));
    }

    /// Nothing has come. Is it time to give up?
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let doing = self.doing.0.load(Relaxed);
        if doing != SENDING_HEAD {
            self.awaits_head = false;
        } else if !self.awaits_head {
            self.awaits_head = true;
            self.timer.as_mut().reset(Instant::now() + HEAD_WITHIN);
        }
        while self.timer.as_mut().poll(context).is_ready() {
            if doing == SENDING_HEAD || (doing == NOTHING && !self.heard) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.heard = false;
            self.timer.as_mut().reset(Instant::now() + IDLE);
        }
        Poll::Pending
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.left.is_empty() {
            self.hand_out(buffer);
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.wait(context),
            Poll::Ready(read) => {
                if buffer.filled().len() > before
                    && self.hear()
                    && let Some(mended) = request_line::mended(&buffer.filled()[before..])
                {
                    buffer.set_filled(before);
                    self.left = mended.into();
                    self.hand_out(buffer);
                }
                Poll::Ready(read)
            }
        }
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.unanswered = false;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unanswered = false;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unanswered && self.doing.0.load(Relaxed) == SENDING_HEAD {
            self.unanswered = false;
            // So little always fits, and it is the last word anyway.
            let _ = Pin::new(&mut self.stream).poll_write(context, UNREADABLE);
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
