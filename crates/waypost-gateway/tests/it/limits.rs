//! What a gateway does at the limits of its process, and how much memory clients can make it use.

use std::time::Duration;

use http::{Request, Response};
use serde_json::{Value, json};

use crate::support::{GatewayProcess, Origin, RawClient, body, with_deadline};

const GET: &str = "GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends a request over a connection that stays open, and returns the head and the body.
async fn request(client: &mut RawClient, request: &str) -> (String, String) {
    client.send(request).await;
    let mut response = client.read_until("\r\n\r\n").await;
    let (head, mut body) = response.split_once("\r\n\r\n").expect("a head");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse::<usize>().expect("a length"))
    });
    let missing = length.expect("a length") - body.len();
    let head = head.to_owned();
    if missing > 0 {
        let mut rest = vec![0; missing];
        let reading = tokio::io::AsyncReadExt::read_exact(&mut client.0, &mut rest);
        with_deadline("the body", reading)
            .await
            .expect("a whole body");
        response.push_str(&String::from_utf8_lossy(&rest));
        body = response.split_once("\r\n\r\n").expect("a head").1;
    }
    (head, body.to_owned())
}

#[tokio::test]
async fn instances_are_not_blamed_if_the_gateway_has_no_descriptors() {
    // Each request needs a connection of its own.
    let closing = || {
        Origin::start(|_: Request<_>| async {
            let response = Response::builder().header("connection", "close");
            response.body(body("hello")).expect("a response")
        })
    };
    let instances = [closing().await, closing().await];
    let gateway = GatewayProcess::start(64, &instances.each_ref().map(|it| it.address)).await;
    let mut client = RawClient::connect(gateway.address).await;
    let mut operator = RawClient::connect(gateway.internal).await;
    let routes = "GET /internal/routes HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert!(
        request(&mut client, GET)
            .await
            .0
            .starts_with("HTTP/1.1 200")
    );
    request(&mut operator, routes).await;
    let mut idle = Vec::new();
    for _ in 0..69 {
        idle.push(RawClient::connect(gateway.address).await);
    }
    // The gateway accepts them one after the other, until it has no descriptor left.
    let problem: Value = with_deadline("a response without descriptors", async {
        loop {
            let (head, body) = request(&mut client, GET).await;
            if !head.starts_with("HTTP/1.1 200") {
                assert!(head.starts_with("HTTP/1.1 503"), "{head}");
                return serde_json::from_str(&body).expect("a problem");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(problem["reason"], "gateway_overloaded", "{problem}");
    let (_, listed) = request(&mut operator, routes).await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let route = &listed["routes"][0];
    assert_eq!(route["avoided"], json!([]), "{route}");
    for instance in route["balancing"]["instances"].as_array().expect("a list") {
        assert_eq!(instance["selection"], "used", "{instance}");
    }
    drop(idle);
    with_deadline("a response afterwards", async {
        while !request(&mut client, GET)
            .await
            .0
            .starts_with("HTTP/1.1 200")
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_unfinished_head_is_in_memory_once() {
    const CLIENTS: u64 = 300;
    /// A head of 60 kB, with the memory of its connection and what the allocator can't use.
    const PER_CLIENT: u64 = 110 * 1024;
    let origin = Origin::text("hello").await;
    let gateway = GatewayProcess::start(1024, &[origin.address]).await;
    let mut first = RawClient::connect(gateway.address).await;
    request(&mut first, GET).await;
    let before = gateway.peak_memory();
    let head = format!(
        "GET /shop/ HTTP/1.1\r\nHost: a\r\nX-Long: {}",
        "x".repeat(60_000)
    );
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = RawClient::connect(gateway.address).await;
        client.send(&head).await;
        clients.push(client);
    }
    for client in &mut clients {
        let (head, _) = request(client, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    let used = gateway.peak_memory() - before;
    assert!(
        used < CLIENTS * PER_CLIENT,
        "{} bytes per client",
        used / CLIENTS
    );
}
