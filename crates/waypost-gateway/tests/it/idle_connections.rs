//! Connections on which a client sends nothing for a while. The gateway keeps only their sockets.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    GatewayProcess, Origin, RawClient, TestGateway, body, pass_time, with_deadline,
};

const GET: &str = "GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n";

/// A gateway whose clock can be paused, with a service that responds with "hello".
async fn gateway() -> TestGateway {
    let gateway = TestGateway::start_with(|config| config.worker_threads = 0).await;
    let origin = Origin::text("hello").await;
    gateway.add("shop", "s", origin.address).await;
    gateway
}

async fn get(client: &mut RawClient) {
    client.send(GET).await;
    let response = client.read_until("hello").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}

#[tokio::test]
async fn a_connection_answers_again_and_again_after_it_was_idle() {
    let gateway = gateway().await;
    let mut client = RawClient::connect(gateway.address).await;
    for seconds in [0, 1, 30, 1, 70] {
        pass_time(Duration::from_secs(seconds)).await;
        get(&mut client).await;
        get(&mut client).await;
    }
}

#[tokio::test]
async fn many_idle_connections_all_answer() {
    let gateway = gateway().await;
    let mut clients = Vec::new();
    // More connections than may keep their buffers, so the last ones release theirs at once.
    for _ in 0..150 {
        let mut client = RawClient::connect(gateway.address).await;
        get(&mut client).await;
        clients.push(client);
    }
    for _ in 0..2 {
        for client in &mut clients {
            get(client).await;
        }
        pass_time(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_keep_alive_timeout_and_not_before() {
    let gateway = gateway().await;
    let mut used = RawClient::connect(gateway.address).await;
    let mut never_used = RawClient::connect(gateway.address).await;
    get(&mut used).await;
    pass_time(Duration::from_secs(74)).await;
    get(&mut used).await;
    get(&mut never_used).await;
    pass_time(Duration::from_secs(76)).await;
    assert_eq!(used.read_to_end().await, "");
    assert_eq!(never_used.read_to_end().await, "");
}

#[tokio::test]
async fn a_connection_is_closed_after_the_keep_alive_timeout_whatever_the_response_was() {
    for status in [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED] {
        let gateway = TestGateway::start_with(|config| config.worker_threads = 0).await;
        let origin = Origin::start(move |_| async move {
            let mut response = Response::new(body(""));
            *response.status_mut() = status;
            response
        })
        .await;
        gateway.add("shop", "s", origin.address).await;
        let mut client = RawClient::connect(gateway.address).await;
        client.send(GET).await;
        client.read_until("\r\n\r\n").await;
        pass_time(Duration::from_secs(76)).await;
        assert_eq!(client.read_to_end().await, "", "{status}");
    }
}

#[tokio::test]
async fn a_head_that_arrives_in_two_halves_after_idle_time_is_one_request() {
    let gateway = gateway().await;
    let mut client = RawClient::connect(gateway.address).await;
    for half in ["G", "GET /shop/ HTTP/1.1\r\nHo", GET.trim_ascii_end()] {
        get(&mut client).await;
        pass_time(Duration::from_secs(30)).await;
        client.send(half).await;
        pass_time(Duration::from_secs(2)).await;
        client.send(&GET[half.len()..]).await;
        let response = client.read_until("hello").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    }
}

#[tokio::test]
async fn empty_lines_in_front_of_a_request_are_ignored() {
    let gateway = gateway().await;
    let mut client = RawClient::connect(gateway.address).await;
    for before in [0, 30] {
        pass_time(Duration::from_secs(before)).await;
        client.send("\r\n\r\n").await;
        pass_time(Duration::from_secs(30)).await;
        get(&mut client).await;
    }
    // They don't keep the connection open either.
    for _ in 0..5 {
        pass_time(Duration::from_secs(30)).await;
        let _ = client.0.write_all(b"\r\n").await;
    }
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn a_head_that_stays_unfinished_after_idle_time_is_cut_off() {
    let gateway = TestGateway::start_with(|config| {
        config.worker_threads = 0;
        config.head_timeout = Duration::from_secs(1000);
    })
    .await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("passing").await;
    pass_time(Duration::from_secs(30)).await;
    client.send("GET /livez HTTP/1.1\r\nX-").await;
    for _ in 0..4 {
        pass_time(Duration::from_secs(300)).await;
        // More bytes don't restart the limit.
        let _ = client.0.write_all(b"x").await;
    }
    client.read_to_end().await;
}

#[tokio::test]
async fn pipelined_requests_after_idle_time_are_all_answered() {
    let gateway = gateway().await;
    let mut client = RawClient::connect(gateway.address).await;
    get(&mut client).await;
    pass_time(Duration::from_secs(1)).await;
    client.send(GET.repeat(40)).await;
    let mut received = String::new();
    while received.matches("hello").count() < 40 {
        received += &client.read_until("hello").await;
    }
    assert_eq!(received.matches("HTTP/1.1 200").count(), 40);
    pass_time(Duration::from_secs(1)).await;
    get(&mut client).await;
}

#[tokio::test]
async fn a_response_that_the_client_reads_late_is_whole() {
    const SIZE: usize = 20_000_000;
    let gateway = TestGateway::start_with(|config| {
        config.worker_threads = 0;
        config.write_timeout = Duration::from_secs(3600);
    })
    .await;
    let origin = Origin::start(|_| async { Response::new(body(vec![b'x'; SIZE])) }).await;
    gateway.add("shop", "s", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    for _ in 0..2 {
        client.send(GET).await;
        let mut head = client.read_until("\r\n\r\n").await;
        pass_time(Duration::from_secs(5)).await;
        let body = head.split_off(head.find("\r\n\r\n").unwrap() + 4);
        let mut rest = vec![0; SIZE - body.len()];
        with_deadline("the body", client.0.read_exact(&mut rest))
            .await
            .unwrap();
        assert!(rest.iter().all(|byte| *byte == b'x'));
        pass_time(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn idle_connections_are_closed_at_once_when_the_gateway_ends() {
    let mut gateway = gateway().await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut client = RawClient::connect(gateway.address).await;
        get(&mut client).await;
        clients.push(client);
    }
    pass_time(Duration::from_secs(1)).await;
    gateway.begin_shutdown();
    for client in &mut clients {
        assert_eq!(client.read_to_end().await, "");
    }
    gateway.stopped().await;
}

/// The type and the payload of the next frame; `None` at the end of the connection.
async fn read_frame(client: &mut RawClient) -> Option<(u8, Vec<u8>)> {
    with_deadline("a frame", async {
        let mut head = [0; 9];
        client.0.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; usize::from(head[2])];
        client.0.read_exact(&mut payload).await.ok()?;
        Some((head[3], payload))
    })
    .await
}

#[tokio::test]
async fn an_idle_http2_connection_gets_a_goaway_before_it_is_closed() {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 7;
    let gateway = gateway().await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send(SETTINGS).await;
    // The gateway's settings.
    assert!(read_frame(&mut client).await.is_some());
    pass_time(Duration::from_secs(76)).await;
    let mut goaways = Vec::new();
    while let Some((kind, payload)) = read_frame(&mut client).await {
        if kind == GOAWAY {
            goaways.push(payload[4..8].to_vec());
            // The client doesn't confirm it.
            pass_time(Duration::from_secs(60)).await;
        }
    }
    assert_eq!(goaways, [[0; 4]], "one without an error");
}

#[tokio::test]
async fn the_buffers_of_idle_connections_are_released() {
    const CLIENTS: u64 = 600;
    /// Their buffers would take more than 20 kB.
    const PER_CLIENT: u64 = 6 * 1024;
    let origin = Origin::text("hello").await;
    let gateway = GatewayProcess::start(1024, &[origin.address]).await;
    get(&mut RawClient::connect(gateway.address).await).await;
    let before = gateway.peak_memory();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = RawClient::connect(gateway.address).await;
        get(&mut client).await;
        clients.push(client);
    }
    let used = gateway.peak_memory() - before;
    assert!(
        used < CLIENTS * PER_CLIENT,
        "{} bytes per client",
        used / CLIENTS
    );
}
