//! Traffic figures and metrics.

use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use waypost::Health;

use crate::support::{
    FlakyRegistry, Origin, RawClient, Routed, TestGateway, body, instance, unused_address,
    with_deadline,
};

/// An open event stream of traffic.
struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    async fn open(gateway: &TestGateway) -> Self {
        Self::open_at(gateway, "/internal/traffic?seconds=60").await
    }

    async fn open_at(gateway: &TestGateway, path: &str) -> Self {
        let request = Request::get(gateway.url(path));
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

    /// The data of the next event with that name.
    async fn next_named(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next_of_any_name().await;
            if name == wanted {
                return data;
            }
        }
    }

    /// The name and the data of the next event about traffic.
    async fn next(&mut self) -> (String, Value) {
        loop {
            let event = self.next_of_any_name().await;
            if event.0 != "routes" {
                return event;
            }
        }
    }

    async fn next_of_any_name(&mut self) -> (String, Value) {
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

    // A service without requests is there only if its instances have changed.
    let quiet = async |events: &mut Events| {
        while events.next().await.1["services"] != serde_json::json!({}) {}
    };
    quiet(&mut events).await;
    gateway.add("shop", "b", unused_address()).await;
    let changed = loop {
        let (_, second) = events.next().await;
        if second["services"] != serde_json::json!({}) {
            break second;
        }
    };
    let shop = &changed["services"]["shop"];
    assert_eq!(shop["requests"], 0, "{changed}");
    let instances = shop["instances"].as_object().unwrap();
    assert_eq!(instances.len(), 2, "{changed}");
    quiet(&mut events).await;

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
async fn the_routes_are_described_and_again_when_their_state_changes() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    gateway.add("shop", "a", origin.address).await;
    let mut events = Events::open(&gateway).await;
    let described = events.next_named("routes").await;
    let shop = &described["routes"][0];
    assert_eq!(
        (&shop["path"], &shop["source"], &shop["service"]),
        (&"/shop/".into(), &"discovery".into(), &"shop".into())
    );
    assert_eq!(shop["instances"], Value::Null, "not used yet: {shop}");
    assert_eq!(shop["error"], Value::Null, "{shop}");
    assert_eq!(described["outage"], Value::Null);

    gateway.get("/shop/").await;
    let shop = &events.next_named("routes").await["routes"][0];
    assert_eq!(
        (&shop["instances"], &shop["usable"]),
        (&1.into(), &1.into())
    );
    gateway
        .insert(instance("shop", "a", origin.address).health(Health::Critical))
        .await;
    let mut shop = Value::Null;
    while shop["usable"] != 0 {
        shop = events.next_named("routes").await["routes"][0].clone();
    }
    let error = shop["error"].as_str().unwrap();
    assert!(error.contains("shop"), "{error}");
}

#[tokio::test]
async fn a_route_to_a_service_that_is_not_registered_says_so() {
    let routed = Routed::start("routes: [{match: {path: /x}, service: ghost}]").await;
    let described = Events::open(&routed.gateway)
        .await
        .next_named("routes")
        .await;
    let ghost = &described["routes"][0];
    assert_eq!(ghost["service"], "ghost");
    assert_eq!(ghost["instances"], Value::Null);
    assert_eq!(ghost["error"], "the registry lists no such service");
}

#[tokio::test]
async fn the_public_stream_has_rates_but_no_address_of_an_instance() {
    let gateway = TestGateway::start().await;
    let origin = Origin::text("hello").await;
    gateway.add("shop", "a", origin.address).await;
    let mut events = Events::open_at(&gateway, "/.waypost/traffic").await;
    events.next_named("snapshot").await;
    gateway.get("/shop/").await;
    let mut shop = Value::Null;
    while shop["requests"] != 1 {
        let second = events.next_named("second").await;
        assert!(
            !second.to_string().contains(&origin.address.to_string()),
            "{second}"
        );
        shop = second["services"]["shop"].clone();
    }
    assert_eq!(shop["instances"], serde_json::json!({}));
}

#[tokio::test]
async fn an_open_stream_does_not_delay_the_end_of_the_gateway() {
    let mut gateway = TestGateway::start_with(|config| {
        config.drain_timeout = std::time::Duration::from_secs(3600);
    })
    .await;
    let mut events = Events::open_at(&gateway, "/.waypost/traffic").await;
    events.next_named("snapshot").await;
    gateway.begin_shutdown();
    with_deadline("the end of the gateway", gateway.stopped()).await;
}

#[tokio::test]
async fn metrics_count_requests_by_service_and_class() {
    let gateway = TestGateway::start().await;
    gateway
        .add("shop", "a", Origin::text("hello").await.address)
        .await;
    let began = tokio::time::Instant::now();
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
        "waypost_gateway_first_byte_seconds_count{service=\"shop\"} 3",
        "waypost_gateway_ejected_instances{service=\"shop\"} 0",
        "waypost_gateway_ejections_total{service=\"shop\"} 0",
        "waypost_gateway_stale_seconds{service=\"shop\"} 0",
    ] {
        assert!(
            metrics.text().lines().any(|found| found == line),
            "{line} in {metrics:?}"
        );
    }
    assert!(!metrics.text().contains("class=\"5xx\""), "{metrics:?}");
    let passed = began.elapsed().as_secs_f64();
    let sum = value(metrics.text(), "waypost_gateway_first_byte_seconds_sum");
    assert!(0.0 < sum && sum <= 3.0 * passed, "{sum} of {passed} s");
    let bounds = metrics.text().lines().filter_map(|line| {
        let (_, rest) = line.split_once("le=\"")?;
        rest.split_once('"')?.0.parse::<f64>().ok()
    });
    let bounds: Vec<_> = bounds.filter(|bound| bound.is_finite()).collect();
    assert!(bounds.is_sorted() && bounds.len() > 10, "{bounds:?}");
    assert!(bounds[0] < 0.01 && (10.0..1000.0).contains(bounds.last().unwrap()));
}

/// The value of a metric of the service `shop`.
fn value(metrics: &str, name: &str) -> f64 {
    let start = format!("{name}{{service=\"shop\"}} ");
    let found = metrics.lines().find_map(|line| line.strip_prefix(&start));
    found.expect(name).parse().expect("a number")
}

#[tokio::test]
async fn metrics_show_ejections_and_the_age_of_the_instances_during_an_outage() {
    let registry = FlakyRegistry::new();
    let provider = std::sync::Arc::new(registry.clone());
    let gateway = TestGateway::start_on(provider, registry.memory.clone(), |_| ()).await;
    let failing = Origin::start(|_| async {
        let response = Response::builder().status(500);
        response.body(body("")).unwrap()
    })
    .await;
    let working = Origin::text("hello").await;
    gateway.add("shop", "bad", failing.address).await;
    for id in ["a", "b", "c"] {
        gateway.add("shop", id, working.address).await;
    }
    let metrics = async || gateway.get("/metrics").await.text().to_owned();
    with_deadline("the ejection", async {
        loop {
            gateway.get("/shop/").await;
            let metrics = metrics().await;
            if value(&metrics, "waypost_gateway_ejected_instances") == 1.0 {
                assert_eq!(value(&metrics, "waypost_gateway_ejections_total"), 1.0);
                assert_eq!(value(&metrics, "waypost_gateway_stale_seconds"), 0.0);
                break;
            }
        }
    })
    .await;
    registry.set_down(true);
    let is_stale = async || value(&metrics().await, "waypost_gateway_stale_seconds") > 0.0;
    with_deadline("the outage", async { while !is_stale().await {} }).await;
}

#[tokio::test]
async fn the_internal_pages_are_not_on_the_public_listener() {
    let gateway = TestGateway::start_with(|config| config.list_routes = false).await;
    gateway
        .add("shop", "a", Origin::text("hello").await.address)
        .await;
    for path in [
        "/internal/services",
        "/internal/routes",
        "/metrics",
        "/",
        "/.waypost/",
        "/.waypost/traffic",
    ] {
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
