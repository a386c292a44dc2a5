//! A client's connection, from its first bytes to its end.
//!
//! While a client that speaks HTTP/1 sends nothing, only its socket is kept. hyper's buffers, and what
//! the requests of a connection share, exist from the first byte of a request until the connection has
//! been idle for a moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

use crate::connection_context::{BoxError, ConnectionContext, ServeOutcome};
use crate::http_connection::{serve_http1, serve_http2};
use crate::listener::{Accepted, Permit};
use crate::server::Server;
use crate::transport::Transport;
use crate::worker::Worker;

/// The idle time after which TCP keep-alive probes are sent.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The first bytes of an HTTP/2 connection. No method of HTTP/1.1 begins with them.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// A client's connection. Ends when the client closes it, an error occurs, or the worker ends.
pub(crate) struct Connection {
    context: ConnectionContext,
    step: Step,
    _permit: Permit,
}

enum Step {
    /// The client has sent nothing yet.
    New(Transport),
    /// The client has sent nothing since its last request or the TLS handshake.
    Idle(Transport),
    /// Boxed, so that the task of an idle connection is small.
    Serving(Pin<Box<dyn Future<Output = Result<ServeOutcome, BoxError>> + Send>>),
    Closed,
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
        let context = ConnectionContext {
            server,
            deadline: worker.deadlines().deadline(),
            worker,
            peer: accepted.peer,
        };
        let step = if context.server.tls().is_some() {
            Step::Serving(Box::pin(serve_tls(context.clone(), stream)))
        } else {
            context.deadline.set(context.limits().idle);
            Step::New(Transport::Plain(stream))
        };
        Ok(Self {
            context,
            step,
            _permit: accepted.permit,
        })
    }

    fn poll_steps(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        loop {
            self.step = match &mut self.step {
                Step::New(transport) | Step::Idle(transport) => {
                    let received = ready!(self.context.poll_received(transport, cx))?;
                    if !received {
                        return Poll::Ready(Ok(()));
                    }
                    let idle_for = self
                        .context
                        .limits()
                        .idle
                        .saturating_sub(self.context.deadline.left());
                    self.context.deadline.clear();
                    let context = self.context.clone();
                    match std::mem::replace(&mut self.step, Step::Closed) {
                        Step::New(transport) => {
                            Step::Serving(Box::pin(serve_plain(context, transport)))
                        }
                        Step::Idle(transport) => Step::Serving(Box::pin(serve_http1(
                            context,
                            transport,
                            Vec::new(),
                            Some(idle_for),
                        ))),
                        other => other,
                    }
                }
                Step::Serving(serving) => match ready!(serving.as_mut().poll(cx))? {
                    ServeOutcome::Closed => Step::Closed,
                    ServeOutcome::Idle(transport, time) => {
                        let limit = self.context.limits().idle.saturating_sub(time);
                        self.context.deadline.set(limit);
                        Step::Idle(transport)
                    }
                },
                Step::Closed => return Poll::Ready(Ok(())),
            };
        }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let ended = ready!(this.poll_steps(cx));
        this.step = Step::Closed;
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %this.context.peer, "connection failed");
        }
        Poll::Ready(())
    }
}

async fn serve_tls(
    context: ConnectionContext,
    stream: TcpStream,
) -> Result<ServeOutcome, BoxError> {
    let Some(tls) = context.server.tls() else {
        return Ok(ServeOutcome::Closed);
    };
    let handshake = tls.acceptor().accept(stream);
    let stream = context.within(context.limits().head, handshake).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let transport = Transport::Tls(Box::new(stream.into()));
    if is_http2 {
        Box::pin(serve_http2(context, transport, Vec::new())).await
    } else {
        Ok(ServeOutcome::Idle(transport, Duration::ZERO))
    }
}

/// Serves a connection without TLS. Its first bytes show the version of HTTP.
async fn serve_plain(
    context: ConnectionContext,
    mut transport: Transport,
) -> Result<ServeOutcome, BoxError> {
    let reading = read_first(&mut transport);
    let first = context.within(context.limits().head, reading).await?;
    if first == HTTP2_PREFACE {
        Box::pin(serve_http2(context, transport, first)).await
    } else {
        Box::pin(serve_http1(context, transport, first, None)).await
    }
}

/// Reads as many bytes as show whether a connection without TLS begins with HTTP/2 ("prior knowledge").
async fn read_first(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut first = [0; HTTP2_PREFACE.len()];
    let mut length = 0;
    loop {
        let free = first.get_mut(length..).unwrap_or_default();
        let count = stream.read(free).await?;
        length += count;
        let received = first.get(..length).unwrap_or_default();
        if count == 0 || length == first.len() || !HTTP2_PREFACE.starts_with(received) {
            return Ok(received.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn the_version_of_http_is_known_once_enough_bytes_have_arrived() {
        for (first, rest, expected) in [
            ("P", "RI * HTTP/2.0", "PRI "),
            ("PRI", " ", "PRI "),
            ("P", "UT / HTTP/1.1", "PUT "),
            ("PR", "OPFIND /", "PROP"),
            ("PRI * HTTP/2.0", "", "PRI "),
            ("GE", "", "GE"),
        ] {
            let (mut client, mut stream) = duplex(64);
            client.write_all(first.as_bytes()).await.unwrap();
            let mut reading = std::pin::pin!(read_first(&mut stream));
            if !rest.is_empty() {
                assert!(poll!(reading.as_mut()).is_pending(), "{first}");
                client.write_all(rest.as_bytes()).await.unwrap();
            }
            assert_eq!(reading.await.unwrap(), expected.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_connection_may_end_before_its_version_of_http_is_known() {
        for sent in ["", "PR"] {
            let (mut client, mut stream) = duplex(64);
            client.write_all(sent.as_bytes()).await.unwrap();
            drop(client);
            assert_eq!(read_first(&mut stream).await.unwrap(), sent.as_bytes());
        }
    }
}
