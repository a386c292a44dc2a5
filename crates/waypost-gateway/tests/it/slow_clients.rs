//! Clients that are too slow, or send too much.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::support::{Origin, RawClient, RawOrigin, TestGateway, body, pass_time, with_deadline};

#[tokio::test]
async fn a_client_that_sends_half_a_head_is_cut_off() {
    let gateway =
        TestGateway::start_with(|config| config.head_timeout = Duration::from_millis(300)).await;
    // The second could become one of HTTP/2.
    for half in ["GET /shop/ HTTP/1.1\r\nHost: a\r\nX-", "PR"] {
        let mut client = RawClient::connect(gateway.address).await;
        client.send(half).await;
        client.read_to_end().await;
    }
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_the_keep_alive_timeout() {
    let gateway =
        TestGateway::start_with(|config| config.keep_alive_timeout = Duration::from_millis(300))
            .await;
    let mut never_used = RawClient::connect(gateway.address).await;
    never_used.read_to_end().await;
    let mut used = RawClient::connect(gateway.address).await;
    used.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = used.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_connection_is_closed_after_the_keep_alive_timeout_once_an_instance_has_answered() {
    let gateway =
        TestGateway::start_with(|config| config.keep_alive_timeout = Duration::from_millis(300))
            .await;
    gateway
        .add("shop", "s", Origin::text("hello").await.address)
        .await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.read_to_end().await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_body_that_arrives_too_slowly_gets_a_408() {
    let gateway = TestGateway::start_with(|config| {
        config.upload_idle_timeout = Duration::from_secs(3);
        config.min_upload_rate = Some(1000);
    })
    .await;
    gateway.add("shop", "s", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("POST /shop/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        .await;
    let (mut reading, mut writing) = client.0.into_split();
    // No pause is longer than the timeout.
    let trickle = tokio::spawn(async move {
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut answer);
    let _ = with_deadline("the response", reading).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(answer.contains("1000 bytes per second"), "{answer}");
    trickle.abort();
}

#[tokio::test]
async fn a_body_with_trailers_that_has_arrived_is_not_too_slow() {
    let gateway = TestGateway::start_with(|config| {
        config.worker_threads = 0;
        config.upload_idle_timeout = Duration::from_secs(3);
        config.min_upload_rate = Some(1000);
    })
    .await;
    let (gate, received) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (opened, has_received) = (Arc::clone(&gate), Arc::clone(&received));
    let origin = Origin::start(move |request| {
        let (gate, received) = (Arc::clone(&opened), Arc::clone(&has_received));
        async move {
            let sent = request.into_body().collect().await.expect("a body");
            received.add_permits(1);
            gate.acquire().await.expect("open").forget();
            Response::new(body(sent.to_bytes()))
        }
    })
    .await;
    gateway.add("shop", "s", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send_with_trailer("POST", "/shop/").await;
    let all = with_deadline("the request", received.acquire()).await;
    all.expect("open").forget();
    pass_time(Duration::from_secs(30)).await;
    gate.add_permits(1);
    let answer = client.read_until("hi").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_off() {
    let gateway =
        TestGateway::start_with(|config| config.write_timeout = Duration::from_millis(300)).await;
    let origin = RawOrigin::start(|mut stream| async move {
        RawOrigin::read_head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    })
    .await;
    gateway.add("flood", "f", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /flood/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    with_deadline("the end of the request", async {
        while gateway.service("flood").await["instances"][0]["in_flight"] != 0
            || origin.connections() == 0
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_is_too_long_gets_a_413() {
    let gateway = TestGateway::start_with(|config| config.max_body = Some(10)).await;
    let origin = Origin::echo().await;
    gateway.add("shop", "s", origin.address).await;
    let announced = gateway
        .send_body(Request::post(gateway.url("/shop/")), "eleven bytes")
        .await;
    assert_eq!(announced.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(announced.reason(), "body_too_large");
    assert_eq!(origin.requests(), 0);

    let mut client = RawClient::connect(gateway.address).await;
    client
        .send(
            "POST /shop/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             6\r\neleven\r\n6\r\n bytes\r\n0\r\n\r\n",
        )
        .await;
    let answer = client.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    let fits = gateway
        .send_body(Request::post(gateway.url("/shop/")), "ten bytes!")
        .await;
    assert_eq!(fits.json()["body"], "ten bytes!");
}

#[tokio::test]
async fn an_address_may_have_only_so_many_connections() {
    let gateway =
        TestGateway::start_with(|config| config.max_connections_per_address = Some(2)).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = RawClient::connect(gateway.address).await;
        client.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until("passing").await;
        clients.push(client);
    }
    let mut refused = RawClient::connect(gateway.address).await;
    assert_eq!(refused.read_to_end().await, "");
    clients.pop();
    let accepted = async || {
        let mut client = RawClient::connect(gateway.address).await;
        let request = "GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let _ = client.0.write_all(request.as_bytes()).await;
        client.read_to_end().await.contains("passing")
    };
    with_deadline("a free connection", async { while !accepted().await {} }).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_close() {
    let gateway = TestGateway::start_with(|config| config.max_connections = Some(1)).await;
    let mut first = RawClient::connect(gateway.address).await;
    first.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
    first.read_until("passing").await;
    let mut second = RawClient::connect(gateway.address).await;
    second.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
    drop(first);
    second.read_until("passing").await;
}
