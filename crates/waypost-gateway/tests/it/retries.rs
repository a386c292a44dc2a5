//! When a request is tried on another instance, and when it must not be.

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

use crate::support::{Origin, RawOrigin, TestGateway, body, nobody, soon, until};

/// Reads a request and hangs up.
async fn breaks() -> RawOrigin {
    RawOrigin::start(|mut stream| async move {
        RawOrigin::read_head(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn an_instance_that_refuses_the_connection_costs_nobody_a_request() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "dead", nobody()).await;
    gateway
        .add("auth", "live", Origin::echo().await.address)
        .await;
    for method in [Method::GET, Method::POST, Method::PATCH] {
        for _ in 0..10 {
            let request = Request::builder()
                .method(&method)
                .uri(gateway.url("/auth/"));
            let answer = gateway.send_body(request, "a body").await;
            assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
            assert_eq!(answer.json()["body"], "a body");
            assert_eq!(answer.instance(), "live");
        }
    }
    let routes = gateway.get("/internal/routes").await.json();
    assert_eq!(routes["routes"][0]["avoided"][0], "dead", "{routes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_an_instance_under_load_fails_no_request() {
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
                let answer = gateway.get("/auth/").await;
                assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    until("load", || done.load(Ordering::Relaxed) > 300).await;
    origins[1].kill().await;
    let killed_at = done.load(Ordering::Relaxed);
    until("load after the kill", || {
        done.load(Ordering::Relaxed) > killed_at + 1000
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for worker in join_all(workers).await {
        worker.expect("no request failed");
    }
}

#[tokio::test]
async fn a_post_that_an_instance_has_seen_is_not_sent_again() {
    let gateway = TestGateway::start().await;
    let (one, two) = (breaks().await, breaks().await);
    gateway.add("bank", "one", one.address).await;
    gateway.add("bank", "two", two.address).await;
    for payload in ["pay 100", ""] {
        let before = one.connections() + two.connections();
        let answer = gateway
            .send_body(Request::post(gateway.url("/bank/pay")), payload)
            .await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(answer.reason(), "connection_broken");
        assert_eq!(answer.json()["attempts"], 1);
        assert_eq!(answer.json()["retryable"], false);
        assert_eq!(one.connections() + two.connections(), before + 1);
    }
}

#[tokio::test]
async fn a_get_that_broke_goes_to_another_instance() {
    let gateway = TestGateway::start().await;
    let broken = breaks().await;
    gateway.add("auth", "broken", broken.address).await;
    gateway
        .add("auth", "whole", Origin::says("hello").await.address)
        .await;
    for _ in 0..4 {
        let answer = gateway.get("/auth/").await;
        assert_eq!(
            (answer.status, answer.instance()),
            (StatusCode::OK, "whole")
        );
    }
    assert!(broken.connections() > 0, "some requests began there");
}

#[tokio::test]
async fn no_instance_is_tried_twice_while_there_is_another() {
    let gateway = TestGateway::start_with(|config| config.max_attempts = 4).await;
    let mut origins = Vec::new();
    for id in ["a", "b", "c"] {
        let origin = breaks().await;
        gateway.add("auth", id, origin.address).await;
        origins.push(origin);
    }
    let connections =
        |origins: &[RawOrigin]| -> Vec<_> { origins.iter().map(RawOrigin::connections).collect() };
    let answer = gateway.get("/auth/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(answer.json()["attempts"], 4);
    let mut tried = connections(&origins);
    tried.sort_unstable();
    assert_eq!(tried, [1, 1, 2], "the fourth attempt has no other left");
}

/// Breaks after the whole body of the first request, and echoes the others.
async fn breaks_once(bytes: usize) -> RawOrigin {
    let first = Arc::new(AtomicBool::new(true));
    RawOrigin::start(move |mut stream| {
        let first = first.swap(false, Ordering::SeqCst);
        async move {
            RawOrigin::read_head(&mut stream).await;
            let mut read = vec![0; bytes];
            let _ = stream.read_exact(&mut read).await;
            if !first {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &read).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_put_is_sent_again_with_its_whole_body_if_that_was_kept() {
    let gateway = TestGateway::start_with(|config| config.replay_limit = 100_000).await;
    for (service, size, status, connections) in [
        ("small", 100_000, StatusCode::OK, 2),
        ("large", 100_001, StatusCode::BAD_GATEWAY, 1),
    ] {
        let origin = breaks_once(size).await;
        gateway.add(service, service, origin.address).await;
        let sent: Bytes = (0..size)
            .map(|n| (n % 251) as u8)
            .collect::<Vec<_>>()
            .into();
        let request = Request::put(gateway.url(&format!("/{service}/")));
        let answer = gateway.send_body(request, sent.clone()).await;
        assert_eq!(answer.status, status, "{service}");
        assert_eq!(origin.connections(), connections, "{service}");
        if status == StatusCode::OK {
            assert_eq!(answer.body, sent);
        }
    }
}

#[tokio::test]
async fn retries_stay_a_small_share_of_the_requests() {
    let began = Instant::now();
    let gateway = TestGateway::start().await;
    let origins = [breaks().await, breaks().await, breaks().await];
    for (id, origin) in ["a", "b", "c"].iter().zip(&origins) {
        gateway.add("auth", id, origin.address).await;
    }
    const REQUESTS: usize = 1000;
    for _ in 0..REQUESTS / 50 {
        let answers = join_all((0..50).map(|_| gateway.get("/auth/"))).await;
        assert!(
            answers
                .iter()
                .all(|answer| answer.status == StatusCode::BAD_GATEWAY)
        );
    }
    let tried: usize = origins.iter().map(RawOrigin::connections).sum();
    assert!(tried > REQUESTS, "some are retried: {tried}");
    // A fifth, and the 10 a second of 10 s that are always allowed. These come back as time goes by,
    // sooner than after 10 s where requests are rare, as they are if the machine is slow.
    let seconds = began.elapsed().as_secs() as usize + 1;
    let most = REQUESTS + REQUESTS / 5 + 100 + 20 * seconds;
    assert!(tried <= most, "{tried} of at most {most}");
}

#[tokio::test]
async fn an_instance_that_comes_back_is_used_again() {
    let gateway = TestGateway::start().await;
    let reserved = tokio::net::TcpSocket::new_v4().unwrap();
    reserved.set_reuseaddr(true).unwrap();
    reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    gateway
        .add("auth", "a", reserved.local_addr().unwrap())
        .await;
    let answer = gateway.get("/auth/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.reason(), "connect_failed");
    assert_eq!(answer.header("retry-after"), "2");
    // It is avoided now, but there is no other, so that it answers at once when it is there.
    let listener = reserved.listen(8).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            RawOrigin::read_head(&mut stream).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
        }
    });
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    let routes = gateway.get("/internal/routes").await.json();
    assert_eq!(routes["routes"][0]["avoided"], serde_json::json!([]));
}

#[tokio::test]
async fn connections_to_an_instance_are_used_again() {
    let gateway = TestGateway::start().await;
    let origin = RawOrigin::start(|mut stream| async move {
        loop {
            if RawOrigin::read_head(&mut stream).await.is_empty() {
                return;
            }
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await;
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
async fn an_instance_may_answer_before_it_has_the_whole_body() {
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
    let answer = soon("the answer", gateway.send_body(request, vec![0; 300_000])).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (413, "too much"));
}

#[tokio::test]
async fn an_instance_that_fails_again_and_again_is_ejected() {
    let gateway = TestGateway::start().await;
    let sick = Origin::start(|_| async {
        Response::builder()
            .status(500)
            .body(body("sick"))
            .expect("a response")
    })
    .await;
    gateway.add("auth", "sick", sick.address).await;
    for id in ["a", "b"] {
        gateway
            .add("auth", id, Origin::says("well").await.address)
            .await;
    }
    let mut failed = 0;
    for _ in 0..60 {
        failed += usize::from(gateway.get("/auth/").await.status != StatusCode::OK);
    }
    assert_eq!(failed, 5, "five failures in a row eject");
    let routes = gateway.get("/internal/routes").await.json();
    let route = routes["routes"]
        .as_array()
        .and_then(|routes| routes.iter().find(|route| route["service"] == "auth"))
        .expect("the route");
    let instances = route["balancing"]["instances"].as_array().expect("a list");
    let fate = |id: &str| {
        let found = instances.iter().find(|instance| instance["id"] == id);
        found.expect("the instance")["fate"].clone()
    };
    assert_eq!((fate("sick"), fate("a")), ("ejected".into(), "used".into()));
}
