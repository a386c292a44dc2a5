//! HTTP/2 and gRPC, in front of the gateway and behind it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::support::{Body, Origin, TestGateway, body, instance, wait_until, with_deadline};

/// A client that uses HTTP/2 with prior knowledge.
async fn connect(address: SocketAddr) -> SendRequest<Body> {
    connect_with_socket(address).await.0
}

/// Like [`connect`], with the socket, which can be closed at any time.
async fn connect_with_socket(address: SocketAddr) -> (SendRequest<Body>, std::net::TcpStream) {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let stream = stream.into_std().expect("a socket");
    let socket = stream.try_clone().expect("another handle");
    let stream = TcpStream::from_std(stream).expect("a socket");
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    (sender, socket)
}

/// A server that only supports HTTP/2. It echoes each message as it arrives, then sends trailers.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.version(), Version::HTTP_2);
                assert_eq!(request.headers()["te"], "trailers");
                let path = request.uri().path().to_owned();
                let messages = request.into_body().into_data_stream();
                let frames =
                    messages.map(|message| message.map(Frame::data).map_err(std::io::Error::other));
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                trailers.insert("x-not-announced", HeaderValue::from_static("yes"));
                let end = futures_util::stream::iter([Ok(Frame::trailers(trailers))]);
                let answer: Body = UnsyncBoxBody::new(StreamBody::new(frames.chain(end)));
                Ok::<_, Infallible>(
                    Response::builder()
                        .header("content-type", "application/grpc")
                        .header("x-path", path)
                        .body(answer)
                        .expect("a response"),
                )
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

/// A call whose messages are sent later.
fn grpc_call(path: &str) -> (mpsc::UnboundedSender<Bytes>, Request<Body>) {
    let (messages, receiver) = mpsc::unbounded_channel::<Bytes>();
    let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
        let message = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(message)), receiver))
    });
    let request = Request::post(format!("http://gw.test{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(UnsyncBoxBody::new(StreamBody::new(frames)))
        .expect("a request");
    (messages, request)
}

#[tokio::test]
async fn requests_on_one_connection_are_served_at_the_same_time() {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("echo", "e", origin.address).await;
    let client = connect(gateway.address).await;
    let calls = (0..50).map(|n| {
        let mut client = client.clone();
        let request = Request::post(format!("http://gw.test/echo/{n}?x"));
        let request = request.body(body(format!("body {n}"))).unwrap();
        async move {
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.version(), Version::HTTP_2);
            let seen = response.into_body().collect().await.unwrap().to_bytes();
            let seen: serde_json::Value = serde_json::from_slice(&seen).unwrap();
            assert_eq!(seen["uri"], format!("/{n}?x"));
            assert_eq!(seen["body"], format!("body {n}"));
            assert_eq!(seen["headers"]["host"], "gw.test");
            assert_eq!(seen["headers"]["x-forwarded-host"], "gw.test");
            assert!(
                seen["headers"]["via"]
                    .as_str()
                    .unwrap()
                    .starts_with("2 waypost-")
            );
        }
    });
    with_deadline("the responses", futures_util::future::join_all(calls)).await;
    assert_eq!(origin.requests(), 50);
}

#[tokio::test]
async fn messages_of_a_grpc_stream_pass_in_both_directions_before_its_end() {
    let gateway = TestGateway::start().await;
    let service = instance("chat", "c", echo().await).meta("app_protocol", "kubernetes.io/h2c");
    gateway.insert(service).await;
    let mut client = connect(gateway.address).await;
    let (messages, request) = grpc_call("/chat/chat.Chat/Talk");
    messages.send(Bytes::from("first")).unwrap();
    let response = with_deadline("the response", client.send_request(request))
        .await
        .unwrap();
    assert_eq!(response.headers()["x-path"], "/chat.Chat/Talk");
    let mut answers = response.into_body();
    for expected in ["first", "second", "third"] {
        let frame = with_deadline(expected, answers.frame())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
        // The next message is sent only after this one has come back.
        let next = if expected == "first" {
            "second"
        } else {
            "third"
        };
        if expected != "third" {
            messages.send(Bytes::from(next)).unwrap();
        }
    }
    drop(messages);
    let end = with_deadline("the trailers", answers.frame())
        .await
        .unwrap()
        .unwrap();
    let trailers = end.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-not-announced"], "yes");
}

#[tokio::test]
async fn a_grpc_client_that_leaves_cancels_the_call() {
    let gateway = TestGateway::start().await;
    gateway
        .insert(instance("chat", "c", echo().await).scheme("grpc"))
        .await;
    let (mut client, socket) = connect_with_socket(gateway.address).await;
    let (messages, request) = grpc_call("/chat/chat.Chat/Talk");
    messages.send(Bytes::from("first")).unwrap();
    let response = with_deadline("the response", client.send_request(request))
        .await
        .unwrap();
    assert_eq!(
        gateway.service("chat").await["instances"][0]["in_flight"],
        1
    );
    drop(response);
    socket.shutdown(std::net::Shutdown::Both).unwrap();
    with_deadline("the end of the call", async {
        while gateway.service("chat").await["instances"][0]["in_flight"] != 0 {}
    })
    .await;
}

#[tokio::test]
async fn errors_of_the_gateway_are_a_grpc_status_for_a_grpc_client() {
    let gateway = TestGateway::start_with(|config| {
        config.first_byte_timeout = Duration::from_millis(300);
    })
    .await;
    gateway
        .insert(instance("down", "d", crate::support::unused_address()).scheme("grpc"))
        .await;
    let silent = Origin::start(|_| std::future::pending::<Response<_>>()).await;
    gateway.add("silent", "s", silent.address).await;
    let mut client = connect(gateway.address).await;
    for (path, code, reason) in [
        ("/unknown/a.B/C", "12", "unknown_service"),
        ("/down/a.B/C", "14", "connect_failed"),
        ("/silent/a.B/C", "4", "response_timeout"),
    ] {
        let (messages, request) = grpc_call(path);
        drop(messages);
        let response = with_deadline(path, client.send_request(request))
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], code, "{path}");
        let message = response.headers()["grpc-message"].to_str().unwrap();
        assert!(message.starts_with(reason), "{path}: {message}");
    }
}

#[tokio::test]
async fn an_http_2_connection_ends_after_its_requests_when_the_gateway_does() {
    let mut gateway = TestGateway::start().await;
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let released = std::sync::Mutex::new(Some(released));
    let origin = Origin::start(move |_| {
        let released = released.lock().unwrap().take();
        async move {
            let _ = released.unwrap().await;
            Response::new(body("finished"))
        }
    })
    .await;
    gateway.add("slow", "s", origin.address).await;
    let mut client = connect(gateway.address).await;
    let request = Request::get("http://gw.test/slow/").body(body("")).unwrap();
    let response = tokio::spawn(client.send_request(request));
    wait_until("the request", || origin.requests() == 1).await;
    gateway.begin_shutdown();
    release.send(()).unwrap();
    let response = with_deadline("the response", response)
        .await
        .unwrap()
        .unwrap();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "finished");
    gateway.stopped().await;
}
