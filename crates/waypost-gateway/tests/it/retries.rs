//! When a request is retried on another instance, and when it must not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use crate::support::{
    Origin, RawClient, RawOrigin, TestGateway, body, unused_address, wait_until, with_deadline,
};

/// Reads a request head and closes the connection without a response.
async fn closes() -> RawOrigin {
    RawOrigin::start(|mut stream| async move {
        RawOrigin::read_head(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_refused_connection_is_retried_on_another_instance() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "dead", unused_address()).await;
    gateway
        .add("auth", "live", Origin::echo().await.address)
        .await;
    for method in [Method::GET, Method::POST, Method::PATCH] {
        for _ in 0..10 {
            let request = Request::builder()
                .method(&method)
                .uri(gateway.url("/auth/"));
            let response = gateway.send_body(request, "a body").await;
            assert_eq!(response.status, StatusCode::OK, "{response:?}");
            assert_eq!(response.json()["body"], "a body");
            assert_eq!(response.instance(), "live");
        }
    }
    // It is avoided for a few seconds, so on a slow machine it may just be tried again.
    with_deadline("the dead instance to be avoided", async {
        loop {
            gateway.get("/auth/").await;
            let routes = gateway.get("/internal/routes").await.json();
            if routes["routes"][0]["avoided"][0] == "dead" {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_an_instance_is_killed_under_load() {
    let gateway = Arc::new(TestGateway::start().await);
    let mut origins = Vec::new();
    for id in ["a", "b", "c"] {
        let origin = Origin::start(|_| async {
            tokio::time::sleep(Duration::from_millis(2)).await;
            Response::new(body("hello"))
        })
        .await;
        gateway.add("auth", id, origin.address).await;
        origins.push(origin);
    }
    let (done, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let workers = (0..16).map(|_| {
        let (gateway, done, stop) = (Arc::clone(&gateway), Arc::clone(&done), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let response = gateway.get("/auth/").await;
                assert_eq!(response.status, StatusCode::OK, "{response:?}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    wait_until("load", || done.load(Ordering::Relaxed) > 300).await;
    origins[1].kill().await;
    let killed_at = done.load(Ordering::Relaxed);
    wait_until("load after the kill", || {
        done.load(Ordering::Relaxed) > killed_at + 1000
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for worker in join_all(workers).await {
        worker.expect("no request failed");
    }
}

#[tokio::test]
async fn a_post_is_not_retried_after_it_was_sent() {
    let gateway = TestGateway::start().await;
    let (one, two) = (closes().await, closes().await);
    gateway.add("bank", "one", one.address).await;
    gateway.add("bank", "two", two.address).await;
    for payload in ["pay 100", ""] {
        let before = one.connections() + two.connections();
        let response = gateway
            .send_body(Request::post(gateway.url("/bank/pay")), payload)
            .await;
        assert_eq!(response.status, StatusCode::BAD_GATEWAY);
        assert_eq!(response.reason(), "connection_broken");
        assert_eq!(response.json()["attempts"], 1);
        assert_eq!(response.json()["retryable"], false);
        assert_eq!(one.connections() + two.connections(), before + 1);
    }
}

#[tokio::test]
async fn a_get_is_retried_on_another_instance_after_the_connection_broke() {
    let gateway = TestGateway::start().await;
    let broken = closes().await;
    gateway.add("auth", "broken", broken.address).await;
    gateway
        .add("auth", "whole", Origin::text("hello").await.address)
        .await;
    for _ in 0..4 {
        let response = gateway.get("/auth/").await;
        assert_eq!(
            (response.status, response.instance()),
            (StatusCode::OK, "whole")
        );
    }
    assert!(
        broken.connections() > 0,
        "the broken instance was tried first for some requests"
    );
}

#[tokio::test]
async fn an_instance_is_tried_twice_only_if_there_is_no_other() {
    let gateway = TestGateway::start_with(|config| config.max_attempts = 4).await;
    let mut origins = Vec::new();
    for id in ["a", "b", "c"] {
        let origin = closes().await;
        gateway.add("auth", id, origin.address).await;
        origins.push(origin);
    }
    let connections =
        |origins: &[RawOrigin]| -> Vec<_> { origins.iter().map(RawOrigin::connections).collect() };
    let response = gateway.get("/auth/").await;
    assert_eq!(response.status, StatusCode::BAD_GATEWAY);
    assert_eq!(response.json()["attempts"], 4);
    let mut tried = connections(&origins);
    tried.sort_unstable();
    assert_eq!(
        tried,
        [1, 1, 2],
        "no other instance is left for the fourth attempt"
    );
}

/// Closes the connection after the body of the first request, and echoes the bodies of the others.
async fn closes_once(bytes: usize) -> RawOrigin {
    let first = Arc::new(AtomicBool::new(true));
    RawOrigin::start(move |mut stream| {
        let first = first.swap(false, Ordering::SeqCst);
        async move {
            RawOrigin::read_head(&mut stream).await;
            let mut read = vec![0; bytes];
            let _ = stream.read_exact(&mut read).await;
            if !first {
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, response.as_bytes()).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &read).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_put_is_retried_if_its_body_is_within_the_replay_limit() {
    let gateway = TestGateway::start_with(|config| config.replay_limit = 100_000).await;
    for (service, size, status, connections) in [
        ("small", 100_000, StatusCode::OK, 2),
        ("large", 100_001, StatusCode::BAD_GATEWAY, 1),
    ] {
        let origin = closes_once(size).await;
        gateway.add(service, service, origin.address).await;
        let sent: Bytes = (0..size)
            .map(|n| (n % 251) as u8)
            .collect::<Vec<_>>()
            .into();
        let request = Request::put(gateway.url(&format!("/{service}/")));
        let response = gateway.send_body(request, sent.clone()).await;
        assert_eq!(response.status, status, "{service}");
        assert_eq!(origin.connections(), connections, "{service}");
        if status == StatusCode::OK {
            assert_eq!(response.body, sent);
        }
    }
}

#[tokio::test]
async fn a_retried_request_has_its_trailers_again() {
    let gateway = TestGateway::start().await;
    let first = AtomicBool::new(true);
    let origin = RawOrigin::start(move |mut stream| {
        let first = first.swap(false, Ordering::SeqCst);
        async move {
            RawOrigin::read_head(&mut stream).await;
            // The chunks and the trailers end with an empty line, too.
            let read = RawOrigin::read_head(&mut stream).await;
            if !first {
                let length = read.len();
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{read}");
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, response.as_bytes()).await;
            }
        }
    })
    .await;
    gateway.add("shop", "s", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send_with_trailer("PUT", "/shop/").await;
    let response = client.read_until("0\r\nx-sum: 7\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn retries_stay_within_the_budget() {
    let began = Instant::now();
    let gateway = TestGateway::start().await;
    let origins = [closes().await, closes().await, closes().await];
    for (id, origin) in ["a", "b", "c"].iter().zip(&origins) {
        gateway.add("auth", id, origin.address).await;
    }
    const REQUESTS: usize = 1000;
    for _ in 0..REQUESTS / 50 {
        let responses = join_all((0..50).map(|_| gateway.get("/auth/"))).await;
        assert!(
            responses
                .iter()
                .all(|response| response.status == StatusCode::BAD_GATEWAY)
        );
    }
    let tried: usize = origins.iter().map(RawOrigin::connections).sum();
    assert!(tried > REQUESTS, "some are retried: {tried}");
    // A fifth of the requests, plus a reserve of 10 per second for 10 s. The reserve recovers over
    // time, which matters on a slow machine.
    let seconds = began.elapsed().as_secs() as usize + 1;
    let most = REQUESTS + REQUESTS / 5 + 100 + 20 * seconds;
    assert!(tried <= most, "{tried} of at most {most}");
}

#[tokio::test]
async fn an_instance_is_used_again_as_soon_as_it_accepts_connections() {
    let gateway = TestGateway::start().await;
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    gateway
        .add("auth", "a", reserved.local_addr().unwrap())
        .await;
    let response = gateway.get("/auth/").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.reason(), "connect_failed");
    assert_eq!(response.header("retry-after"), "2");
    // It refused a connection just now, but there is no other instance to prefer.
    let listener = reserved.listen(8).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            RawOrigin::read_head(&mut stream).await;
            let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, response.as_bytes()).await;
        }
    });
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    let routes = gateway.get("/internal/routes").await.json();
    assert_eq!(routes["routes"][0]["avoided"], serde_json::json!([]));
}

#[tokio::test]
async fn connections_to_an_instance_are_reused() {
    let gateway = TestGateway::start().await;
    let origin = RawOrigin::start(|mut stream| async move {
        loop {
            if RawOrigin::read_head(&mut stream).await.is_empty() {
                return;
            }
            let response = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, response.as_bytes()).await;
        }
    })
    .await;
    gateway.add("auth", "a", origin.address).await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_response_sent_before_the_end_of_the_upload_is_passed_on() {
    let gateway = TestGateway::start().await;
    let origin = Origin::start(|request: Request<Incoming>| async move {
        let mut incoming = request.into_body();
        let _ = incoming.frame().await;
        Response::builder()
            .status(413)
            .body(body("too much"))
            .unwrap()
    })
    .await;
    gateway.add("store", "s", origin.address).await;
    let request = Request::post(gateway.url("/store/"));
    let response =
        with_deadline("the response", gateway.send_body(request, vec![0; 300_000])).await;
    assert_eq!(
        (response.status.as_u16(), response.text()),
        (413, "too much")
    );
}

#[tokio::test]
async fn an_instance_that_keeps_failing_is_ejected() {
    let gateway = TestGateway::start().await;
    let failing = Origin::start(|_| async {
        Response::builder()
            .status(500)
            .body(body("failing"))
            .expect("a response")
    })
    .await;
    gateway.add("auth", "failing", failing.address).await;
    for id in ["a", "b"] {
        gateway
            .add("auth", id, Origin::text("healthy").await.address)
            .await;
    }
    let mut failed = 0;
    for _ in 0..60 {
        failed += usize::from(gateway.get("/auth/").await.status != StatusCode::OK);
    }
    assert_eq!(failed, 5, "ejected after five consecutive failures");
    let routes = gateway.get("/internal/routes").await.json();
    let route = routes["routes"]
        .as_array()
        .and_then(|routes| routes.iter().find(|route| route["service"] == "auth"))
        .expect("the route");
    let instances = route["balancing"]["instances"].as_array().expect("a list");
    let selection = |id: &str| {
        let found = instances.iter().find(|instance| instance["id"] == id);
        found.expect("the instance")["selection"].clone()
    };
    assert_eq!(
        (selection("failing"), selection("a")),
        ("ejected".into(), "used".into())
    );
}

#[tokio::test]
async fn a_501_does_not_count_against_the_instance() {
    let gateway = TestGateway::start().await;
    let origin = Origin::start(|_| async {
        Response::builder()
            .status(501)
            .body(body("unknown method"))
            .expect("a response")
    })
    .await;
    for id in ["a", "b", "c"] {
        gateway.add("auth", id, origin.address).await;
    }
    for request in 1..=60 {
        let response = gateway.get("/auth/").await;
        assert_eq!(response.status, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(origin.requests(), request, "no retry");
    }
    let routes = gateway.get("/internal/routes").await.json();
    let balancing = &routes["routes"][0]["balancing"];
    let instances = balancing["instances"].as_array().expect("a list");
    for instance in instances {
        assert!(instance["ejection"].is_null(), "{instance}");
        assert!(instance["share"].as_f64() > Some(0.0), "{instance}");
    }
}
