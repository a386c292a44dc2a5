//! The byte stream from and to a client, with time limits.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::client::ConnectionState;
use crate::config::Config;
use crate::deadlines::{Deadline, Deadlines};
use crate::framing::{FramingConflict, Scanner};

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

/// A client's connection, with or without TLS.
pub(crate) struct ClientStream {
    transport: Transport,
    state: Arc<ConnectionState>,
    limits: ClientLimits,
    /// Looks for conflicting framing in HTTP/1.1.
    scanner: Option<Scanner>,
    read_deadline: Arc<Deadline>,
    reading: Reading,
    deadlines: Deadlines,
    /// Set while the client reads nothing.
    write_deadline: Option<Arc<Deadline>>,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What `read_deadline` limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// A request is in progress, which has its own limits.
    Nothing,
    /// The time until the next request.
    Idle,
    /// The time to the end of a head.
    Head,
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
    pub(crate) fn plain(
        stream: TcpStream,
        state: Arc<ConnectionState>,
        limits: ClientLimits,
        deadlines: &Deadlines,
    ) -> Self {
        Self::new(Transport::Plain(stream), state, limits, deadlines)
    }

    pub(crate) fn tls(
        stream: TlsStream<TcpStream>,
        state: Arc<ConnectionState>,
        limits: ClientLimits,
        deadlines: &Deadlines,
    ) -> Self {
        Self::new(Transport::Tls(Box::new(stream)), state, limits, deadlines)
    }

    fn new(
        transport: Transport,
        state: Arc<ConnectionState>,
        limits: ClientLimits,
        deadlines: &Deadlines,
    ) -> Self {
        Self {
            transport,
            state,
            limits,
            scanner: None,
            read_deadline: deadlines.deadline(),
            reading: Reading::Nothing,
            deadlines: deadlines.clone(),
            write_deadline: None,
        }
    }

    /// Scans what is read for conflicting framing.
    pub(crate) fn scan(&mut self) -> FramingConflict {
        let scanner = self.scanner.insert(Scanner::default());
        scanner.conflict().clone()
    }

    /// The limit on reading, which the task of the connection waits for.
    pub(crate) fn read_deadline(&self) -> &Arc<Deadline> {
        &self.read_deadline
    }

    /// Fails if the client has sent nothing for too long.
    fn check_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let reading = if !self.state.is_idle() {
            Reading::Nothing
        } else if self.scanner.as_ref().is_some_and(Scanner::is_in_head) {
            Reading::Head
        } else {
            Reading::Idle
        };
        // After a request the deadline has to start again, even if the state is the same as before.
        if reading != self.reading || !self.read_deadline.is_set() {
            self.reading = reading;
            match reading {
                Reading::Nothing => self.read_deadline.clear(),
                Reading::Idle => self.read_deadline.set(self.limits.idle),
                Reading::Head => self.read_deadline.set(self.limits.head),
            }
            self.read_deadline.register(cx.waker());
        }
        if self.read_deadline.has_passed() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
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
            deadline.set(self.limits.write);
        }
        deadline.register(cx.waker());
        if deadline.has_passed() {
            self.reset();
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Makes the connection end with a reset, which also drops what the client has not read.
    fn reset(&self) {
        let socket = match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        };
        let zero = Some(Duration::ZERO);
        if let Err(error) = socket2::SockRef::from(socket).set_linger(zero) {
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
        let read = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        };
        match read {
            Poll::Pending => this.check_read(cx),
            Poll::Ready(Ok(())) => {
                if let (Some(scanner), Some(new)) =
                    (&mut this.scanner, buffer.filled().get(before..))
                {
                    scanner.scan(new);
                }
                if this.reading == Reading::Idle {
                    this.read_deadline.clear();
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
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
        let written = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        this.check_write(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        };
        this.check_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.must_reset() {
            // A regular end would look like the end of the response.
            this.reset();
            return Poll::Ready(Ok(()));
        }
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.state.must_reset() {
            self.reset();
        }
    }
}
