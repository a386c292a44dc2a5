//! The byte stream from and to a client, with time limits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::{ConnectionState, Reading};
use crate::config::Config;
use crate::deadlines::{Deadline, Deadlines};
use crate::framing::{FramingFault, Scanner};
use crate::transport::Transport;

/// The time limits for a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    /// The time from the first byte of a request's head to the last.
    pub(crate) head: Duration,
    /// The time between two requests.
    pub(crate) idle: Duration,
    /// The time in which a client reads nothing of what is sent to it.
    pub(crate) write: Duration,
}

/// A client's byte stream while HTTP is served.
pub(crate) struct ClientStream {
    transport: Transport,
    /// Bytes that have already been read from the transport, for the next read.
    first: Vec<u8>,
    state: Arc<ConnectionState>,
    /// Looks for faults in the framing of HTTP/1.1.
    scanner: Option<Scanner>,
    deadlines: Deadlines,
    write_limit: Duration,
    /// Set while the client reads nothing.
    write_deadline: Option<Arc<Deadline>>,
}

impl ClientLimits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            head: config.head_timeout,
            idle: config.keep_alive_timeout,
            write: config.write_timeout,
        }
    }
}

impl ClientStream {
    /// A stream that begins with the bytes `first`, which have already been read from the transport.
    pub(crate) fn new(
        transport: Transport,
        first: Vec<u8>,
        state: Arc<ConnectionState>,
        write_limit: Duration,
        deadlines: &Deadlines,
    ) -> Self {
        Self {
            transport,
            first,
            state,
            scanner: None,
            deadlines: deadlines.clone(),
            write_limit,
            write_deadline: None,
        }
    }

    /// Scans what is read for faults in the framing.
    pub(crate) fn scan(&mut self) -> FramingFault {
        let scanner = self.scanner.insert(Scanner::default());
        scanner.fault().clone()
    }

    pub(crate) fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Plain(_) => "http",
            Transport::Tls(_) => "https",
        }
    }

    pub(crate) fn into_transport(self) -> Transport {
        self.transport
    }

    /// Moves the bytes that have already been read into a buffer.
    fn put_first(&mut self, buffer: &mut ReadBuf<'_>) {
        let rest = self
            .first
            .split_off(self.first.len().min(buffer.remaining()));
        buffer.put_slice(&self.first);
        self.first = rest;
    }

    /// What is read next.
    fn reading(&self) -> Reading {
        match &self.scanner {
            Some(scanner) if scanner.is_in_head() => Reading::Head,
            Some(scanner) if !scanner.is_between_requests() => Reading::Rest,
            _ => Reading::Request,
        }
    }

    /// Fails if the client has read nothing for too long.
    fn check_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if let Some(deadline) = &self.write_deadline {
                deadline.clear();
            }
            return written;
        }
        let deadline = self
            .write_deadline
            .get_or_insert_with(|| self.deadlines.deadline());
        if !deadline.is_set() {
            deadline.set(self.write_limit);
        }
        deadline.register(cx.waker());
        if deadline.has_passed() {
            self.reset();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Makes the connection end with a reset, which also drops what the client has not read.
    pub(crate) fn reset(&self) {
        let socket = socket2::SockRef::from(self.transport.socket());
        if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "a connection can't be reset");
        }
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if !this.first.is_empty() {
            this.put_first(buffer);
        }
        let read = Pin::new(&mut this.transport).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        if read.is_pending() && new.is_empty() {
            this.state.set_reading(this.reading());
            return Poll::Pending;
        }
        this.state.set_reading(Reading::Nothing);
        match &mut this.scanner {
            Some(scanner) => scanner.scan(new),
            None => this.state.count_read(),
        }
        match read {
            Poll::Pending => Poll::Ready(Ok(())),
            Poll::Ready(read) => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.state.set_writing(true);
        let written = Pin::new(&mut this.transport).poll_write(cx, bytes);
        this.check_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.state.set_writing(true);
        let written = Pin::new(&mut this.transport).poll_write_vectored(cx, buffers);
        this.check_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.transport).poll_flush(cx);
        if flushed.is_ready() {
            this.state.set_writing(false);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.is_released() {
            return Poll::Ready(Ok(()));
        }
        if this.state.must_reset() {
            // A regular end would look like the end of the response.
            this.reset();
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.transport).poll_shutdown(cx)
    }
}
