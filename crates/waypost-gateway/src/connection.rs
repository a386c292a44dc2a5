//! A client's connection, from its first bytes to its end.
//!
//! While a client that speaks HTTP/1 sends nothing, only its socket is kept. hyper's buffers, and what
//! the requests of a connection share, exist from the first byte of a request until the connection has
//! been idle for a moment.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::client_stream::{ClientLimits, Transport};
use crate::deadlines::Deadline;
use crate::http_connection::{self, Http1End};
use crate::listener::{Accepted, Permit};
use crate::server::Server;
use crate::worker::Worker;

/// The idle time after which TCP keep-alive probes are sent.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The first bytes of an HTTP/2 connection. No method of HTTP/1.1 begins with them.
const HTTP2_PREFACE: &[u8] = b"PRI ";

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) server: Arc<Server>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) peer: SocketAddr,
    /// The limit on the time in which the client sends nothing. The worker wakes the task of the
    /// connection through it when it drains or closes.
    pub(crate) deadline: Arc<Deadline>,
    /// `None` while HTTP is served.
    transport: Option<Transport>,
    _permit: Permit,
}

impl Connection {
    /// Must be called within the worker's runtime.
    ///
    /// # Errors
    /// If the system refuses to watch the socket or to set its options.
    pub(crate) fn new(
        server: Arc<Server>,
        worker: Arc<Worker>,
        accepted: Accepted,
    ) -> io::Result<Self> {
        let stream = TcpStream::from_std(accepted.stream)?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(Self {
            server,
            deadline: worker.deadlines().deadline(),
            worker,
            peer: accepted.peer,
            transport: Some(Transport::Plain(stream)),
            _permit: accepted.permit,
        })
    }

    /// Serves the connection until the client closes it, an error occurs, or the worker ends.
    pub(crate) async fn serve(&mut self) {
        if let Err(error) = self.try_serve().await {
            tracing::debug!(%error, peer = %self.peer, "connection failed");
        }
    }

    /// The futures of its steps are boxed, so that the task of an idle connection is small.
    async fn try_serve(&mut self) -> Result<(), BoxError> {
        let limits = ClientLimits::new(self.server.config());
        let mut idle = limits.idle;
        let mut is_http2 = match self.transport.take() {
            Some(Transport::Plain(stream)) if self.server.tls().is_some() => {
                Some(Box::pin(self.accept_tls(stream, limits.head)).await?)
            }
            transport => {
                self.transport = transport;
                None
            }
        };
        loop {
            if is_http2 != Some(true) && !self.receives(idle).await? {
                return Ok(());
            }
            if is_http2.is_none() {
                is_http2 = Some(Box::pin(self.begins_with_http2(limits.head)).await?);
            }
            let Some(transport) = self.transport.take() else {
                return Ok(());
            };
            if is_http2 == Some(true) {
                return Box::pin(http_connection::serve_http2(self, transport, limits)).await;
            }
            match Box::pin(http_connection::serve_http1(self, transport, limits)).await? {
                Http1End::Closed => return Ok(()),
                Http1End::Idle(transport, since) => {
                    self.transport = Some(transport);
                    idle = limits.idle.saturating_sub(since);
                }
            }
        }
    }

    /// Negotiates TLS. Returns whether the client chose HTTP/2.
    async fn accept_tls(&mut self, stream: TcpStream, limit: Duration) -> Result<bool, BoxError> {
        let Some(tls) = self.server.tls() else {
            return Ok(false);
        };
        let handshake = tokio::time::timeout(limit, tls.acceptor().accept(stream));
        let stream = self.until_draining(handshake).await???;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        self.transport = Some(Transport::Tls(Box::new(stream)));
        Ok(is_http2)
    }

    /// Waits until the client has sent something. Returns false if the connection is to be closed, since
    /// nothing was sent for `idle` or the worker drains.
    async fn receives(&mut self, idle: Duration) -> io::Result<bool> {
        self.deadline.set(idle);
        let received = poll_fn(|cx| self.poll_receives(cx)).await;
        self.deadline.clear();
        received
    }

    fn poll_receives(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Some(transport) = &mut self.transport else {
            return Poll::Ready(Ok(false));
        };
        self.deadline.register(cx.waker());
        if let Poll::Ready(readable) = transport.poll_readable(cx) {
            return Poll::Ready(readable.map(|()| true));
        }
        if self.deadline.has_passed() || self.worker.is_draining() {
            // With TLS, this tells the client that nothing is missing.
            let _ = transport.poll_shutdown(cx);
            return Poll::Ready(Ok(false));
        }
        Poll::Pending
    }

    /// Whether a connection without TLS begins with HTTP/2 ("prior knowledge").
    async fn begins_with_http2(&self, limit: Duration) -> Result<bool, BoxError> {
        let Some(Transport::Plain(stream)) = &self.transport else {
            return Ok(false);
        };
        let deciding = tokio::time::timeout(limit, begins_with_http2(stream));
        Ok(self.until_draining(deciding).await???)
    }

    /// Awaits a future that is dropped when the worker drains.
    async fn until_draining<T>(&self, waiting: impl Future<Output = T>) -> Result<T, &'static str> {
        let mut waiting = pin!(waiting);
        poll_fn(|cx| {
            self.deadline.register(cx.waker());
            if self.worker.is_draining() {
                return Poll::Ready(Err("the gateway ends"));
            }
            waiting.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}

async fn begins_with_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut buffer = [0; HTTP2_PREFACE.len()];
    loop {
        let count = stream.peek(&mut buffer).await?;
        let received = buffer.get(..count).unwrap_or_default();
        if count == HTTP2_PREFACE.len() || count == 0 || !HTTP2_PREFACE.starts_with(received) {
            return Ok(received == HTTP2_PREFACE);
        }
        // More bytes have to arrive. Peeking again now would return the same bytes.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
