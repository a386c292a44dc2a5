//! Serves one connection of a client.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::client::{Client, ConnectionState};
use crate::client_stream::{ClientLimits, ClientStream};
use crate::deadlines::Deadline;
use crate::forwarded::Forwarding;
use crate::framing::{FramingConflict, MAX_HEAD};
use crate::server::Server;
use crate::worker::Worker;

/// The idle time after which TCP keep-alive probes are sent.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// How often an HTTP/2 connection is checked with a ping, and how long the response may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The number of concurrent requests on an HTTP/2 connection.
const MAX_STREAMS: u32 = 200;
/// The first bytes of an HTTP/2 connection. No method of HTTP/1.1 begins with them.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// Serves a connection until the client closes it, an error occurs, or the worker ends.
pub(crate) async fn serve(
    server: Arc<Server>,
    worker: Arc<Worker>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
) {
    if let Err(error) = serve_stream(server, &worker, stream, peer).await {
        tracing::debug!(%error, %peer, "connection failed");
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn serve_stream(
    server: Arc<Server>,
    worker: &Arc<Worker>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
) -> Result<(), BoxError> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    let limits = ClientLimits::new(server.config());
    let state = Arc::<ConnectionState>::default();
    let deadlines = worker.deadlines();
    let trusted = &server.config().trusted_proxies;
    let (stream, is_http2, scheme) = match server.tls() {
        None => {
            let waiting = tokio::time::timeout(limits.idle, begins_with_http2(&stream));
            let Ok(is_http2) = until_draining(worker, waiting).await? else {
                return Ok(());
            };
            let stream = ClientStream::plain(stream, Arc::clone(&state), limits, deadlines);
            (stream, is_http2?, "http")
        }
        Some(tls) => {
            let handshake = tokio::time::timeout(limits.head, tls.acceptor().accept(stream));
            let stream = until_draining(worker, Box::pin(handshake)).await???;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let stream = ClientStream::tls(stream, Arc::clone(&state), limits, deadlines);
            (stream, is_http2, "https")
        }
    };
    let forwarding = Forwarding::new(peer.ip(), trusted, scheme);
    serve_http(server, worker, stream, peer, forwarding, state, is_http2).await
}

/// Waits for a connection's first bytes. A connection without any is closed when the worker drains.
async fn until_draining<T>(
    worker: &Worker,
    waiting: impl Future<Output = T>,
) -> Result<T, &'static str> {
    let deadline = worker.deadlines().deadline();
    let mut waiting = pin!(waiting);
    poll_fn(|cx| {
        deadline.register(cx.waker());
        if worker.is_draining() {
            return Poll::Ready(Err("the gateway ends"));
        }
        waiting.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// Whether a connection without TLS begins with HTTP/2 ("prior knowledge").
async fn begins_with_http2(stream: &TcpStream) -> std::io::Result<bool> {
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

async fn serve_http(
    server: Arc<Server>,
    worker: &Arc<Worker>,
    mut stream: ClientStream,
    peer: SocketAddr,
    forwarding: Forwarding,
    state: Arc<ConnectionState>,
    is_http2: bool,
) -> Result<(), BoxError> {
    let conflict = if is_http2 {
        FramingConflict::default()
    } else {
        stream.scan()
    };
    let deadline = Arc::clone(stream.read_deadline());
    let client = Client::new(
        Arc::clone(worker),
        peer,
        forwarding,
        is_http2,
        state,
        conflict,
    );
    let client = Arc::new(client);
    let service = service_fn(move |request: Request<Incoming>| {
        let (server, client) = (Arc::clone(&server), Arc::clone(&client));
        async move { Ok::<_, Infallible>(server.respond(request, client).await) }
    });
    // Boxed, so that a connection takes the memory of its own protocol only.
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(stream), service);
        let shut_down = http2::Connection::graceful_shutdown;
        drive(worker, &deadline, Box::pin(connection).as_mut(), shut_down).await?;
    } else {
        let connection = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let shut_down = http1::UpgradeableConnection::graceful_shutdown;
        drive(worker, &deadline, Box::pin(connection).as_mut(), shut_down).await?;
    }
    Ok(())
}

/// Polls a connection until it ends. Shuts it down gracefully when the worker drains, and drops it when
/// the worker closes.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    worker: &Worker,
    deadline: &Deadline,
    mut connection: Pin<&mut C>,
    shut_down: impl Fn(Pin<&mut C>),
) -> hyper::Result<()> {
    let mut is_shutting_down = false;
    poll_fn(|cx| {
        // The worker wakes all connections when it drains and when it closes.
        deadline.register(cx.waker());
        if worker.is_closing() {
            return Poll::Ready(Ok(()));
        }
        if worker.is_draining() && !is_shutting_down {
            is_shutting_down = true;
            shut_down(connection.as_mut());
        }
        connection.as_mut().poll(cx)
    })
    .await
}
