//! Copies of requests to another service.

use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::Semaphore;

use crate::support::{Origin, RawClient, Routed, body, unused_address, wait_until};

/// A service that notes what it gets.
struct Shadow {
    origin: Origin,
    requests: Arc<Mutex<Vec<(String, String, String)>>>,
}

impl Shadow {
    /// Each response waits for a permit.
    async fn start(gate: Arc<Semaphore>) -> Self {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        let origin = Origin::start(move |request| {
            let (noted, gate) = (Arc::clone(&noted), Arc::clone(&gate));
            async move {
                let (parts, sent) = request.into_parts();
                let sent = sent.collect().await.expect("a body").to_bytes();
                let mark = parts.headers["x-waypost-mirrored"].to_str().expect("text");
                noted.lock().expect("no panic").push((
                    format!("{} {}", parts.method, parts.uri),
                    String::from_utf8_lossy(&sent).into_owned(),
                    mark.to_owned(),
                ));
                gate.acquire().await.expect("open").forget();
                let mut response = Response::new(body("discarded"));
                *response.status_mut() = StatusCode::IM_A_TEAPOT;
                response
            }
        })
        .await;
        Self { origin, requests }
    }

    fn requests(&self) -> Vec<(String, String, String)> {
        self.requests.lock().expect("no panic").clone()
    }
}

fn routes(mirror: &str) -> String {
    format!(
        "routes: [{{match: {{path: /shop}}, service: shop, rewrite: /v1, mirror: {{service: shadow, {mirror}}}}}]"
    )
}

async fn shop(mirror: &str) -> (Routed, Origin) {
    let routed = Routed::start(&routes(mirror)).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "s", origin.address).await;
    (routed, origin)
}

#[tokio::test]
async fn requests_are_copied_and_the_copies_responses_are_discarded() {
    let (routed, _origin) = shop("max_body: 10B").await;
    let shadow = Shadow::start(Arc::new(Semaphore::new(100))).await;
    let address = shadow.origin.address;
    routed.gateway.add("shadow", "x", address).await;
    let answer = routed.get("/shop/cart?a=1").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.instance(), "s");
    assert!(answer.json()["headers"]["x-waypost-mirrored"].is_null());
    wait_until("the copy", || shadow.requests().len() == 1).await;
    let post = |text: &'static str| {
        let request = Request::post(routed.gateway.url("/shop"));
        routed.gateway.send_body(request, text)
    };
    assert_eq!(post("ten bytes!").await.json()["body"], "ten bytes!");
    wait_until("the copy", || shadow.requests().len() == 2).await;
    // A longer body is not copied.
    assert_eq!(post("eleven byte").await.json()["body"], "eleven byte");
    routed.get("/shop/last").await;
    wait_until("the copy", || shadow.requests().len() == 3).await;
    let seen = shadow.requests();
    let seen: Vec<_> = seen
        .iter()
        .map(|(head, body, mark)| (head.as_str(), body.as_str(), mark.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("GET /v1/cart?a=1", "", "true"),
            ("POST /v1/", "ten bytes!", "true"),
            ("GET /v1/last", "", "true"),
        ]
    );
}

#[tokio::test]
async fn a_request_with_trailers_is_copied_too() {
    let (routed, _origin) = shop("max_body: 10B").await;
    let shadow = Shadow::start(Arc::new(Semaphore::new(100))).await;
    let address = shadow.origin.address;
    routed.gateway.add("shadow", "x", address).await;
    let mut client = RawClient::connect(routed.gateway.address).await;
    client
        .send(
            "POST /shop HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n",
        )
        .await;
    client.read_until("}").await;
    wait_until("the copy", || shadow.requests().len() == 1).await;
    assert_eq!(shadow.requests()[0].1, "hi");
}

#[tokio::test]
async fn a_slow_or_dead_mirror_does_not_affect_requests_and_is_bounded() {
    let (routed, origin) = shop("max_in_flight: 2").await;
    for _ in 0..3 {
        // The service is unknown.
        assert_eq!(routed.get("/shop").await.status, StatusCode::OK);
    }
    routed.gateway.add("shadow", "dead", unused_address()).await;
    for _ in 0..3 {
        assert_eq!(routed.get("/shop").await.status, StatusCode::OK);
    }
    routed
        .gateway
        .memory
        .remove(&waypost::InstanceId::new("dead"));
    let gate = Arc::new(Semaphore::new(0));
    let shadow = Shadow::start(Arc::clone(&gate)).await;
    let address = shadow.origin.address;
    routed.gateway.add("shadow", "x", address).await;
    while shadow.requests().len() < 2 {
        assert_eq!(routed.get("/shop").await.status, StatusCode::OK);
    }
    for _ in 0..10 {
        assert_eq!(routed.get("/shop").await.status, StatusCode::OK);
    }
    assert_eq!(shadow.requests().len(), 2, "no more than two at a time");
    assert!(origin.requests() >= 18);
    gate.add_permits(1000);
    let post = |n: usize| {
        let request = Request::post(routed.gateway.url("/shop"));
        routed.gateway.send_body(request, format!("{n}"))
    };
    let before = shadow.requests().len();
    let mut n = 0;
    while shadow.requests().len() == before {
        assert_eq!(post(n).await.status, StatusCode::OK);
        n += 1;
    }
}

#[tokio::test]
async fn a_share_of_the_requests_is_copied() {
    let (routed, _origin) = shop("percent: 0").await;
    let shadow = Shadow::start(Arc::new(Semaphore::new(1000))).await;
    let address = shadow.origin.address;
    routed.gateway.add("shadow", "x", address).await;
    for _ in 0..20 {
        routed.get("/shop").await;
    }
    assert_eq!(shadow.requests().len(), 0);
    routed.write(&routes("percent: 50"));
    while shadow.requests().is_empty() {
        routed.get("/shop").await;
    }
    let before = shadow.requests().len();
    for _ in 0..200 {
        routed.get("/shop").await;
    }
    // 100 are expected; fewer than 50 or more than 150 once in about 10^12 runs.
    wait_until("copies", || shadow.requests().len() >= before + 50).await;
    assert!(shadow.requests().len() <= before + 150);
}
