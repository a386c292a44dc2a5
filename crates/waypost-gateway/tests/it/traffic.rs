//! Traffic figures and metrics.

use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;

use crate::support::{Origin, RawClient, TestGateway, body, with_deadline};

/// An open event stream of `/internal/traffic`.
struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    async fn open(gateway: &TestGateway) -> Self {
        let request = Request::get(gateway.url("/internal/traffic?seconds=60"));
        let response = gateway
            .begin(request.body(body("")).expect("a request"))
            .await;
        let response = response.expect("a response");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// The name and the data of the next event.
    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (name, data) = event.split_once('\n').expect("two lines");
                let name = name.strip_prefix("event: ").expect("a name").to_owned();
                let data = data.strip_prefix("data: ").expect("data");
                let data = serde_json::from_str(data).expect("JSON");
                self.text = rest.to_owned();
                return (name, data);
            }
            let frame = with_deadline("an event", self.body.frame()).await;
            let frame = frame.expect("an endless stream").expect("no error");
            self.text += std::str::from_utf8(&frame.into_data().expect("data")).expect("text");
        }
    }
}

#[tokio::test]
async fn each_second_shows_requests_failures_latencies_callers_and_instances() {
    let gateway = TestGateway::start().await;
    let origin = Origin::start(|request: Request<_>| async move {
        let fails = request.uri().path() == "/fails";
        let response = Response::builder().status(if fails { 500 } else { 200 });
        response.body(body("hello")).unwrap()
    })
    .await;
    gateway.add("shop", "a", origin.address).await;
    let mut events = Events::open(&gateway).await;
    let (name, snapshot) = events.next().await;
    assert_eq!(name, "snapshot");
    assert!(snapshot["services"].as_object().unwrap().is_empty());

    for n in 0..10 {
        let path = if n < 2 { "/shop/fails" } else { "/shop/" };
        let request = Request::get(gateway.url(path)).header("x-waypost-caller", "ui");
        gateway.send(request).await;
    }
    let (mut requests, mut failures, mut from_ui, mut of_instance) = (0, 0, 0, 0);
    while requests < 10 {
        let (name, second) = events.next().await;
        assert_eq!(name, "second");
        let shop = &second["services"]["shop"];
        if shop["requests"].as_u64().unwrap_or_default() == 0 {
            continue;
        }
        let instance = &shop["instances"][origin.address.to_string()];
        assert_eq!(instance["ejected"], false, "{second}");
        assert!(instance["in_flight"].is_u64(), "{second}");
        let (median, slow) = (shop["p50_ms"].as_f64(), shop["p99_ms"].as_f64());
        assert!(median > Some(0.0) && median <= slow, "{second}");
        let count = |value: &Value| value.as_u64().unwrap();
        requests += count(&shop["requests"]);
        failures += count(&shop["failures"]);
        from_ui += count(&shop["callers"]["ui"]);
        of_instance += count(&instance["requests"]);
    }
    assert_eq!((requests, failures, from_ui, of_instance), (10, 2, 10, 10));

    // A later subscriber receives the history.
    let (name, snapshot) = Events::open(&gateway).await.next().await;
    assert_eq!(name, "snapshot");
    let buckets = snapshot["services"]["shop"]["buckets"].as_array().unwrap();
    let sum: u64 = buckets
        .iter()
        .map(|bucket| bucket[1].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 10, "{snapshot}");
}

#[tokio::test]
async fn metrics_count_requests_by_service_and_class() {
    let gateway = TestGateway::start().await;
    gateway
        .add("shop", "a", Origin::text("hello").await.address)
        .await;
    for _ in 0..3 {
        gateway.get("/shop/").await;
    }
    // A request is counted after its response has been sent.
    let counted = "waypost_gateway_requests_total{service=\"shop\",class=\"2xx\"} 3";
    let metrics = with_deadline("the third request to be counted", async {
        loop {
            let metrics = gateway.get("/metrics").await;
            if metrics.text().lines().any(|found| found == counted) {
                return metrics;
            }
        }
    })
    .await;
    for line in [
        "waypost_gateway_failures_total{service=\"shop\"} 0",
        "waypost_gateway_response_bytes_total{service=\"shop\"} 15",
        "waypost_gateway_first_byte_seconds_bucket{service=\"shop\",le=\"+Inf\"} 3",
        "waypost_gateway_ejected_instances{service=\"shop\"} 0",
    ] {
        assert!(
            metrics.text().lines().any(|found| found == line),
            "{line} in {metrics:?}"
        );
    }
}

#[tokio::test]
async fn the_internal_pages_are_not_on_the_public_listener() {
    let gateway = TestGateway::start_with(|config| config.list_routes = false).await;
    gateway
        .add("shop", "a", Origin::text("hello").await.address)
        .await;
    for path in ["/internal/services", "/internal/routes", "/metrics", "/"] {
        let mut client = RawClient::connect(gateway.address).await;
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ))
            .await;
        let response = client.read_to_end().await;
        assert!(response.starts_with("HTTP/1.1 404"), "{path}: {response}");
        assert!(!response.contains("shop"), "{path}: {response}");
    }
}

#[tokio::test]
async fn the_internal_pages_refuse_a_host_that_is_not_local() {
    let gateway = TestGateway::start().await;
    for (host, status) in [
        ("evil.example", 403),
        ("evil.example:8001", 403),
        ("localhost:8001", 200),
        ("127.0.0.1", 200),
        ("[::1]:8001", 200),
    ] {
        let request = Request::get(gateway.url("/internal/health")).header("host", host);
        assert_eq!(gateway.send(request).await.status, status, "{host}");
    }
}
