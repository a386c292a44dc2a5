//! What is said when an instance, or a client, doesn't do its part.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{
    Answer, Origin, RawClient, RawOrigin, TestGateway, body, instance, nobody, streamed,
};

#[tokio::test]
async fn an_instance_that_takes_no_connection_in_time_is_a_504() {
    let gateway =
        TestGateway::start_with(|config| config.connect_timeout = Duration::from_millis(100)).await;
    // Once its queue is full, the system ignores who else knocks.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    let knock = || tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address));
    while let Ok(connected) = knock().await {
        queue.push(connected.unwrap());
    }
    gateway.add("auth", "a", address).await;
    let answer = gateway.get("/auth/").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.reason(), "connect_timeout");
    assert_eq!(answer.json()["retryable"], true);
}

#[tokio::test]
async fn an_instance_that_does_not_answer_in_time_is_a_504_and_is_not_asked_again() {
    let gateway =
        TestGateway::start_with(|config| config.first_byte_timeout = Duration::from_millis(500))
            .await;
    let origin = Origin::start(|_| std::future::pending::<Response<_>>()).await;
    gateway.add("auth", "a", origin.address).await;
    gateway.add("auth", "b", origin.address).await;
    let answer = gateway.get("/auth/").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(answer.reason(), "response_timeout");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn the_time_for_the_answer_begins_when_the_upload_is_over() {
    let gateway =
        TestGateway::start_with(|config| config.first_byte_timeout = Duration::from_secs(1)).await;
    let origin = Origin::start(|request: Request<Incoming>| async move {
        Response::new(body(
            request.into_body().collect().await.unwrap().to_bytes(),
        ))
    })
    .await;
    gateway.add("store", "s", origin.address).await;
    let upload = stream::iter(0..12).then(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Bytes::from("x")
    });
    let request = Request::post(gateway.url("/store/"))
        .body(streamed(upload))
        .unwrap();
    let answer = Answer::read(gateway.begin(request).await.unwrap()).await;
    assert_eq!(answer.text(), "x".repeat(12));
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_body_is_a_408() {
    let gateway =
        TestGateway::start_with(|config| config.upload_idle_timeout = Duration::from_millis(100))
            .await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("POST /auth/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf")
        .await;
    let answer = client.read_to_end().await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("client_stalled"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_is_no_http_is_a_502() {
    let gateway = TestGateway::start().await;
    for (service, says) in [
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
        let origin = RawOrigin::writes(says).await;
        gateway.add(service, service, origin.address).await;
        let answer = gateway.get(&format!("/{service}/")).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{service}");
        assert_eq!(answer.reason(), "bad_response", "{service}");
        assert_eq!(origin.connections(), 1, "{service}");
    }
}

#[tokio::test]
async fn an_instance_that_speaks_something_else_is_a_502() {
    let gateway = TestGateway::start().await;
    gateway
        .insert(instance("queue", "q", nobody()).scheme("amqp"))
        .await;
    let answer = gateway.get("/queue/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.reason(), "not_callable");
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("amqp"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_request_that_goes_round_in_a_circle_is_a_508() {
    let gateway = TestGateway::start().await;
    gateway.add("mirror", "m", gateway.address).await;
    let answer = gateway.get("/mirror/mirror/x").await;
    assert_eq!(answer.status, StatusCode::LOOP_DETECTED);
    assert_eq!(answer.reason(), "loop");
}

#[tokio::test]
async fn a_method_that_would_open_or_show_too_much_is_refused() {
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
