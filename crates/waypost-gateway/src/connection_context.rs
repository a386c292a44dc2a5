//! What is needed to serve a client's connection, with HTTP/1 or HTTP/2, and how serving it ended.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::client_stream::ClientLimits;
use crate::deadlines::Deadline;
use crate::server::Server;
use crate::transport::Transport;
use crate::worker::Worker;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is needed to serve a connection.
#[derive(Clone)]
pub(crate) struct ConnectionContext {
    pub(crate) server: Arc<Server>,
    pub(crate) worker: Arc<Worker>,
    pub(crate) peer: SocketAddr,
    /// The time limit while the client sends nothing. The worker also uses it to wake the connection's
    /// task when the worker drains or closes.
    pub(crate) deadline: Arc<Deadline>,
}

/// How serving a connection ended.
pub(crate) enum ServeOutcome {
    Closed,
    /// The client has sent nothing since its last request or the TLS handshake, for the given time.
    Idle(Transport, Duration),
}

impl ConnectionContext {
    pub(crate) fn limits(&self) -> ClientLimits {
        ClientLimits::new(self.server.config())
    }

    /// Waits until the client has sent something. False if the connection was closed instead, because the
    /// time limit has passed or the worker drains.
    pub(crate) fn poll_received(
        &self,
        transport: &mut Transport,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        self.deadline.register(cx.waker());
        if let Poll::Ready(readable) = transport.poll_readable(cx) {
            return Poll::Ready(readable.map(|()| true));
        }
        if self.deadline.has_passed() || self.worker.is_draining() {
            // With TLS, this sends `close_notify`, which tells the client that nothing was cut off.
            let _ = Pin::new(transport).poll_shutdown(cx);
            return Poll::Ready(Ok(false));
        }
        Poll::Pending
    }

    /// Awaits a future. Fails after `limit`, or when the worker drains.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        waiting: impl Future<Output = io::Result<T>>,
    ) -> Result<T, BoxError> {
        let mut waiting = pin!(tokio::time::timeout(limit, waiting));
        poll_fn(|cx| {
            self.deadline.register(cx.waker());
            if self.worker.is_draining() {
                return Poll::Ready(Err("the gateway is shutting down".into()));
            }
            Poll::Ready(Ok(ready!(waiting.as_mut().poll(cx))??))
        })
        .await
    }
}
