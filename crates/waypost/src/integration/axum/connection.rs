//! Accepts connections and serves an application on them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tower::Service;

use super::timeouts::{Activity, RequestBody, ResponseBody, TimeoutStream, Timeouts};

/// The pause after a failed accept, which usually means that file descriptors have run out.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves until `stopped` closes, then until all requests in flight have ended. Dropping it closes
/// all connections.
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    timeouts: Timeouts,
    mut stopped: watch::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    // Best effort: without it, small responses may be delayed.
                    let _ = stream.set_nodelay(true);
                    let connection = serve_connection(stream, peer, app.clone(), timeouts, stopped.clone());
                    connections.spawn(connection);
                }
                Err(error) => pause_after(&error).await,
            },
            Some(_) = connections.join_next() => {}
            // An error means that the sender was dropped, which is the signal to stop.
            Err(_) = stopped.changed() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    // The client has closed the connection already.
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        return;
    }
    tracing::warn!(%error, "failed to accept a connection");
    sleep(ACCEPT_RETRY_DELAY).await;
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    app: Router,
    timeouts: Timeouts,
    mut stopped: watch::Receiver<()>,
) {
    let activity = Activity::default();
    let stream = TimeoutStream::new(stream, timeouts, activity.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        respond(app.clone(), request, peer, timeouts, activity.clone())
    });
    // HTTP/1, and HTTP/2 if the program enables it (feature `http2` of axum).
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection =
        pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        Err(_) = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "connection closed early");
    }
}

async fn respond(
    mut app: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    timeouts: Timeouts,
    activity: Activity,
) -> Result<Response<ResponseBody<impl Sized + Unpin>>, Infallible> {
    let in_flight = activity.request_started();
    let timed_out = Arc::new(AtomicBool::new(false));
    let is_connect = *request.method() == Method::CONNECT;
    let version = request.version();
    let mut request = request.map(|body| {
        Body::new(RequestBody::new(
            body,
            timeouts.body,
            Arc::clone(&timed_out),
        ))
    });
    request.extensions_mut().insert(ConnectInfo(peer));
    let mut response = match app.call(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    // The application knows only that it could not read the body.
    if timed_out.load(Ordering::SeqCst) && !response.status().is_success() {
        response = StatusCode::REQUEST_TIMEOUT.into_response();
        if version < Version::HTTP_2 {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
    }
    let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS
        || (is_connect && response.status().is_success());
    if is_upgrade && version < Version::HTTP_2 {
        activity.upgraded();
    }
    Ok(response.map(|body| ResponseBody::new(body, in_flight)))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::routing::{any, get, post};
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, timeout};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    /// A connection to a server with the default limits. The clock is paused, so an hour takes no
    /// time.
    fn connect() -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = duplex(4096);
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let (stop, stopped) = watch::channel(());
        let serving = async move {
            serve_connection(server, peer, app(), Timeouts::default(), stopped).await;
            drop(stop);
        };
        (client, tokio::spawn(serving))
    }

    fn app() -> Router {
        let endless =
            || Body::from_stream(stream::repeat(Ok::<_, Infallible>(Bytes::from("data"))));
        let silent = async || {
            sleep(HOUR).await;
            let event = stream::once(async {
                sleep(HOUR).await;
                Ok::<_, Infallible>(Bytes::from("event"))
            });
            Body::from_stream(event)
        };
        let echo = async |request: Request| {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let mut upgraded = TokioIo::new(upgraded);
                let byte = upgraded.read_u8().await.unwrap();
                upgraded.write_u8(byte).await.unwrap();
            });
            (
                StatusCode::SWITCHING_PROTOCOLS,
                [("connection", "upgrade"), ("upgrade", "echo")],
            )
        };
        Router::new()
            .route("/", get(async || "hello"))
            .route("/length", post(async |body: Bytes| body.len().to_string()))
            .route("/unread", post(async || "unread"))
            .route("/endless", get(async move || endless()))
            .route("/silent", get(silent))
            .route("/echo", any(echo))
    }

    /// The data received until the server closes the connection, and how long that took.
    async fn read_to_end(client: &mut DuplexStream) -> (String, u64) {
        let started = Instant::now();
        let mut received = Vec::new();
        let closed = client.read_to_end(&mut received);
        let _ = timeout(HOUR, closed)
            .await
            .expect("the server should close the connection");
        (
            String::from_utf8(received).unwrap(),
            started.elapsed().as_secs(),
        )
    }

    /// Sends a byte every five seconds until the connection is closed; returns how long that took.
    async fn drip(client: &mut DuplexStream) -> u64 {
        let started = Instant::now();
        while client.write_all(b"x").await.is_ok() {
            assert!(
                started.elapsed() < HOUR,
                "the server should close the connection"
            );
            sleep(Duration::from_secs(5)).await;
        }
        started.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_half_a_request_head_is_closed() {
        // The shortest is also the beginning of an HTTP/2 connection.
        for head in ["P", "GET / HTTP/1.1\r\nhost: x\r\n"] {
            let (mut client, _server) = connect();
            client.write_all(head.as_bytes()).await.unwrap();
            assert_eq!(
                read_to_end(&mut client).await,
                (String::new(), 30),
                "{head:?}"
            );
        }
        let (mut client, _server) = connect();
        client.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        assert!((30..=40).contains(&drip(&mut client).await));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed() {
        let (mut client, _server) = connect();
        assert_eq!(read_to_end(&mut client).await, (String::new(), 120));

        let (mut client, _server) = connect();
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let (received, seconds) = read_to_end(&mut client).await;
        assert!(received.ends_with("hello"), "{received}");
        assert_eq!(seconds, 120);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_body_is_answered_with_408_and_the_connection_is_closed() {
        let head = b"POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n0123";
        let (mut client, _server) = connect();
        client.write_all(head).await.unwrap();
        let (received, seconds) = read_to_end(&mut client).await;
        assert!(received.starts_with("HTTP/1.1 408 "), "{received}");
        assert!(received.contains("connection: close"), "{received}");
        assert_eq!(seconds, 30);

        let (mut client, _server) = connect();
        client.write_all(head).await.unwrap();
        assert!((30..=40).contains(&drip(&mut client).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_the_application_does_not_read_holds_no_connection() {
        let (mut client, _server) = connect();
        let head = b"POST /unread HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n0123";
        client.write_all(head).await.unwrap();
        let (received, seconds) = read_to_end(&mut client).await;
        assert!(received.ends_with("unread"), "{received}");
        assert!(seconds <= 120, "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_body_may_take_longer() {
        let (mut client, _server) = connect();
        let head = format!(
            "POST /length HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            600 * 2048
        );
        client.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..600 {
            client.write_all(&[0; 2048]).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        let (received, _) = read_to_end(&mut client).await;
        assert!(received.ends_with("1228800"), "{received}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_whose_response_is_never_read_is_closed() {
        let (mut client, server) = connect();
        client
            .write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let started = Instant::now();
        timeout(HOUR, server).await.unwrap().unwrap();
        assert_eq!(started.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_response_and_a_silent_stream_are_not_cut_off() {
        let (mut client, _server) = connect();
        client
            .write_all(b"GET /silent HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut received = String::new();
        client.read_to_string(&mut received).await.unwrap();
        assert!(received.contains("event"), "{received}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_upgraded_connection_is_not_cut_off() {
        let (mut client, _server) = connect();
        let head = b"GET /echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        client.write_all(head).await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            received.push(client.read_u8().await.unwrap());
        }
        assert!(received.starts_with(b"HTTP/1.1 101 "));
        sleep(HOUR).await;
        client.write_u8(b'!').await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'!');
    }
}
