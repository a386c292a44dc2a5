//! The error responses for failing instances and clients.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    FullResponse, Origin, RawClient, RawOrigin, TestGateway, body, instance, streamed,
    unused_address, wait_until,
};

#[tokio::test]
async fn a_connect_timeout_is_a_504() {
    let gateway =
        TestGateway::start_with(|config| config.connect_timeout = Duration::from_millis(100)).await;
    // Once the backlog is full, the kernel drops further connection attempts.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut backlog = Vec::new();
    let connect = || tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address));
    while let Ok(connected) = connect().await {
        backlog.push(connected.unwrap());
    }
    gateway.add("auth", "a", address).await;
    let response = gateway.get("/auth/").await;
    assert_eq!(response.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.reason(), "connect_timeout");
    assert_eq!(response.json()["retryable"], true);
}

#[tokio::test]
async fn a_response_timeout_is_a_504_and_not_retried() {
    let gateway =
        TestGateway::start_with(|config| config.first_byte_timeout = Duration::from_millis(500))
            .await;
    let origin = Origin::start(|_| std::future::pending::<Response<_>>()).await;
    gateway.add("auth", "a", origin.address).await;
    gateway.add("auth", "b", origin.address).await;
    let response = gateway.get("/auth/").await;
    assert_eq!(response.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.reason(), "response_timeout");
    assert_eq!(response.json()["attempts"], 1);
    // It may arrive after the response.
    wait_until("the request", || origin.requests() == 1).await;
}

#[tokio::test]
async fn the_first_byte_timeout_starts_after_the_upload() {
    let gateway =
        TestGateway::start_with(|config| config.first_byte_timeout = Duration::from_secs(4)).await;
    let origin = Origin::start(|request: Request<Incoming>| async move {
        Response::new(body(
            request.into_body().collect().await.unwrap().to_bytes(),
        ))
    })
    .await;
    gateway.add("store", "s", origin.address).await;
    let upload = stream::iter(0..12).then(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        Bytes::from("x")
    });
    let request = Request::post(gateway.url("/store/"))
        .body(streamed(upload))
        .unwrap();
    let response = FullResponse::read(gateway.begin(request).await.unwrap()).await;
    assert_eq!(response.text(), "x".repeat(12));
}

#[tokio::test]
async fn a_client_that_stalls_in_the_middle_of_its_body_gets_a_408() {
    let gateway =
        TestGateway::start_with(|config| config.upload_idle_timeout = Duration::from_millis(100))
            .await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("POST /auth/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        .await;
    let response = client.read_to_end().await;
    assert!(
        response.starts_with("HTTP/1.1 408") && response.contains("client_stalled"),
        "{response}"
    );
}

#[tokio::test]
async fn an_invalid_http_response_is_a_502() {
    let gateway = TestGateway::start().await;
    for (service, response) in [
        ("garbage", "220 mail.example ESMTP\r\n\r\n"),
        (
            "switches",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        ),
        (
            "lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        ),
    ] {
        let origin = RawOrigin::writes(response).await;
        gateway.add(service, service, origin.address).await;
        let response = gateway.get(&format!("/{service}/")).await;
        assert_eq!(response.status, StatusCode::BAD_GATEWAY, "{service}");
        assert_eq!(response.reason(), "bad_response", "{service}");
        assert_eq!(origin.connections(), 1, "{service}");
    }
}

#[tokio::test]
async fn an_instance_with_an_unsupported_scheme_is_a_502() {
    let gateway = TestGateway::start().await;
    gateway
        .insert(instance("queue", "q", unused_address()).scheme("amqp"))
        .await;
    let response = gateway.get("/queue/").await;
    assert_eq!(response.status, StatusCode::BAD_GATEWAY);
    assert_eq!(response.reason(), "not_callable");
    assert!(
        response.json()["detail"].as_str().unwrap().contains("amqp"),
        "{response:?}"
    );
}

#[tokio::test]
async fn a_forwarding_loop_is_a_508() {
    let gateway = TestGateway::start().await;
    gateway.add("mirror", "m", gateway.address).await;
    let response = gateway.get("/mirror/mirror/x").await;
    assert_eq!(response.status, StatusCode::LOOP_DETECTED);
    assert_eq!(response.reason(), "loop");
}

#[tokio::test]
async fn connect_and_trace_are_rejected() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let trace = Request::builder()
        .method(Method::TRACE)
        .uri(gateway.url("/auth/"));
    assert_eq!(gateway.send(trace).await.reason(), "method");
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("CONNECT auth:80 HTTP/1.1\r\nHost: auth:80\r\n\r\n")
        .await;
    assert!(client.read_until("}").await.starts_with("HTTP/1.1 501"));
}
