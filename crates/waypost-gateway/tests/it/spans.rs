//! Spans that the gateway exports by OTLP, received by a small collector.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as Status};
use prost::Message;
use serde_json::Value;
use waypost::Environment;
use waypost_gateway::Config;

use crate::support::{Origin, RawOrigin, Routed, TestGateway, body, unused_address, wait_until};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector, and the spans that it has received.
struct Collector {
    origin: Origin,
    received: Arc<Mutex<Received>>,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    resource: Vec<KeyValue>,
    headers: HeaderMap,
}

impl Collector {
    async fn start() -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let all = Arc::clone(&received);
        let origin = Origin::start(move |request| {
            let all = Arc::clone(&all);
            async move {
                let (parts, incoming) = request.into_parts();
                assert_eq!(parts.uri, "/v1/traces");
                let sent = incoming.collect().await.expect("a body").to_bytes();
                let export = ExportTraceServiceRequest::decode(sent).expect("protobuf");
                let mut all = all.lock().expect("no panic");
                all.headers = parts.headers;
                for spans in export.resource_spans {
                    all.resource = spans.resource.expect("a resource").attributes;
                    let spans = spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
                    all.spans.extend(spans);
                }
                Response::new(body(""))
            }
        })
        .await;
        Self { origin, received }
    }

    fn url(&self) -> String {
        format!("http://{}", self.origin.address)
    }

    fn spans(&self) -> Vec<Span> {
        self.received.lock().expect("no panic").spans.clone()
    }

    /// The spans of a trace, once the span of the request has been received.
    async fn trace(&self, id: &str) -> Trace {
        let find = || -> Vec<Span> {
            let spans = self.spans().into_iter();
            spans.filter(|span| hex(&span.trace_id) == id).collect()
        };
        wait_until("the spans", || {
            find().iter().any(|span| span.kind() == SpanKind::Server)
        })
        .await;
        let (server, client): (Vec<_>, Vec<_>) = find()
            .into_iter()
            .partition(|span| span.kind() == SpanKind::Server);
        let [server] = <[Span; 1]>::try_from(server).expect("one request");
        Trace { server, client }
    }
}

/// The spans of a request.
struct Trace {
    server: Span,
    client: Vec<Span>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An attribute as text; empty if it is missing.
fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let value = found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref());
    match value {
        None => String::new(),
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
    }
}

/// Checks attributes of a span; an empty value means that there is no such attribute.
fn assert_attributes(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(
            attribute(&span.attributes, key),
            *value,
            "{key} in {span:#?}"
        );
    }
}

/// The environment of a gateway that exports each span soon, unless other variables say otherwise.
fn environment(endpoint: &str, variables: &[(&str, &str)]) -> Environment {
    let mut environment = Environment::default()
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .with("OTEL_BSP_SCHEDULE_DELAY", "20");
    for (name, value) in variables {
        environment = environment.with(name, value);
    }
    environment
}

/// A gateway with that environment.
async fn gateway(endpoint: &str, variables: &[(&str, &str)]) -> TestGateway {
    let environment = environment(endpoint, variables);
    TestGateway::start_with(|config| config.environment = environment).await
}

/// A request with the headers of a caller's span.
fn called(gateway: &TestGateway, path: &str, flags: &str) -> http::request::Builder {
    Request::get(gateway.url(path))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"))
        .header("tracestate", "vendor=1")
}

/// The value of a header as a service received it from the gateway. The service responds with its headers.
fn received(response: &Value, header: &str) -> String {
    let value = response["headers"][header].as_str();
    value.unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_request_is_a_span_between_those_of_its_caller_and_of_the_service() {
    let collector = Collector::start().await;
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret%20key");
    let attributes = (
        "OTEL_RESOURCE_ATTRIBUTES",
        "deployment.environment.name=test",
    );
    let gateway = gateway(&collector.url(), &[headers, attributes]).await;
    let origin = Origin::echo().await;
    gateway.add("shop", "shop-1", origin.address).await;

    let request = called(&gateway, "/shop/cart?coupon=secret", "01").header("user-agent", "test/1");
    let seen = gateway.send(request).await.json();
    let Trace { server, client } = collector.trace(TRACE).await;
    let [client] = &client[..] else {
        panic!("one attempt, not {client:#?}");
    };

    assert_eq!(hex(&server.parent_span_id), CALLER);
    assert_eq!(client.parent_span_id, server.span_id);
    let sent = format!("00-{TRACE}-{}-01", hex(&client.span_id));
    assert_eq!(received(&seen, "traceparent"), sent);
    assert_eq!(received(&seen, "tracestate"), "vendor=1");

    assert_eq!(server.name, "GET /shop/");
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.start_time_unix_nano <= client.end_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    let port = gateway.address.port().to_string();
    assert_attributes(
        &server,
        &[
            ("http.request.method", "GET"),
            ("url.scheme", "http"),
            ("url.path", "/shop/cart"),
            ("url.query", ""),
            ("http.route", "/shop/"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
            ("client.address", "127.0.0.1"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "test/1"),
            ("error.type", ""),
            ("waypost.service", "shop"),
            ("waypost.instance", "shop-1"),
            ("waypost.attempts", "1"),
            ("waypost.end", "complete"),
            ("waypost.request_id", &received(&seen, "x-request-id")),
        ],
    );
    let port = origin.address.port().to_string();
    assert_eq!(
        (client.kind(), client.name.as_str()),
        (SpanKind::Client, "GET")
    );
    assert_attributes(
        client,
        &[
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
            ("server.port", &port),
            ("peer.service", "shop"),
            ("waypost.instance", "shop-1"),
            ("http.request.resend_count", ""),
            ("error.type", ""),
        ],
    );

    let received = collector.received.lock().expect("no panic");
    assert_eq!(received.headers["api-key"], "secret key");
    assert_eq!(received.headers["content-type"], "application/x-protobuf");
    for (name, value) in [
        ("service.name", "api-gateway"),
        ("deployment.environment.name", "test"),
    ] {
        assert_eq!(attribute(&received.resource, name), value);
    }
}

#[tokio::test]
async fn each_attempt_is_a_span_and_the_service_gets_that_of_its_own() {
    let collector = Collector::start().await;
    let gateway = gateway(&collector.url(), &[]).await;
    gateway.add("shop", "refuses", unused_address()).await;
    // It breaks the connection, so that the request is repeated.
    let breaks = RawOrigin::writes("").await;
    gateway.add("shop", "breaks", breaks.address).await;
    gateway
        .add("shop", "works", Origin::echo().await.address)
        .await;

    // The first instance may be the one that works.
    for number in 0..20 {
        let trace = format!("{:032x}", number + 1);
        let traceparent = format!("00-{trace}-{CALLER}-01");
        let request = Request::get(gateway.url("/shop/")).header("traceparent", traceparent);
        let response = gateway.send(request).await;
        let Trace { server, mut client } = collector.trace(&trace).await;
        client.sort_by_key(|span| span.start_time_unix_nano);
        assert_attributes(&server, &[("waypost.attempts", &client.len().to_string())]);
        for (index, span) in client.iter().enumerate() {
            assert_eq!(span.parent_span_id, server.span_id);
            let instance = attribute(&span.attributes, "waypost.instance");
            let error = match instance.as_str() {
                "refuses" => "connect_failed",
                "breaks" => "connection_broken",
                _ => "",
            };
            assert_attributes(span, &[("error.type", error)]);
            let resend = match index {
                0 => String::new(),
                index => index.to_string(),
            };
            assert_attributes(span, &[("http.request.resend_count", &resend)]);
            if error.is_empty() {
                let sent = received(&response.json(), "traceparent");
                assert_eq!(sent, format!("00-{trace}-{}-01", hex(&span.span_id)));
            }
        }
        if client.len() > 1 {
            return;
        }
    }
    panic!("no request was repeated");
}

#[tokio::test]
async fn a_request_whose_caller_is_not_sampled_has_no_span() {
    let collector = Collector::start().await;
    let mut gateway = gateway(&collector.url(), &[]).await;
    gateway.add("shop", "s", Origin::echo().await.address).await;
    let seen = gateway.send(called(&gateway, "/shop/", "00")).await.json();
    let unchanged = format!("00-{TRACE}-{CALLER}-00");
    assert_eq!(received(&seen, "traceparent"), unchanged);
    assert_eq!(received(&seen, "tracestate"), "vendor=1");
    // Probes have none either.
    gateway.get("/health").await;
    gateway.get("/shop/other").await;
    gateway.begin_shutdown();
    gateway.stopped().await;
    let spans = collector.spans();
    assert!(spans.iter().all(|span| hex(&span.trace_id) != TRACE));
    let paths = spans.iter().filter(|span| span.kind() == SpanKind::Server);
    let paths = paths.map(|span| attribute(&span.attributes, "url.path"));
    assert_eq!(paths.collect::<Vec<_>>(), ["/shop/other"]);
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_here_is_not_sampled_by_the_service_either() {
    let collector = Collector::start().await;
    let variables = [("OTEL_TRACES_SAMPLER", "always_off")];
    let mut gateway = gateway(&collector.url(), &variables).await;
    gateway.add("shop", "s", Origin::echo().await.address).await;
    let seen = gateway.get("/shop/").await.json();
    let sent = received(&seen, "traceparent");
    assert!(sent.len() == 55 && sent.ends_with("-00"), "{sent}");
    let seen = gateway.send(called(&gateway, "/shop/", "01")).await.json();
    let sent = received(&seen, "traceparent");
    assert!(sent.starts_with(&format!("00-{TRACE}-")), "{sent}");
    assert!(sent.ends_with("-00") && !sent.contains(CALLER), "{sent}");
    gateway.begin_shutdown();
    gateway.stopped().await;
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn an_invalid_traceparent_begins_a_new_trace() {
    let collector = Collector::start().await;
    let gateway = gateway(&collector.url(), &[]).await;
    gateway.add("shop", "s", Origin::echo().await.address).await;
    let valid = format!("00-{TRACE}-{CALLER}-01");
    for lines in [
        vec!["nonsense".to_owned()],
        vec![format!("ff-{TRACE}-{CALLER}-01")],
        vec![format!("00-{}-{CALLER}-01", "0".repeat(32))],
        vec![valid.to_uppercase()],
        vec![valid.clone(), valid],
    ] {
        let mut request = Request::get(gateway.url("/shop/")).header("tracestate", "vendor=1");
        for line in &lines {
            request = request.header("traceparent", line);
        }
        let seen = gateway.send(request).await.json();
        assert_eq!(received(&seen, "tracestate"), "", "{lines:?}");
        let sent = received(&seen, "traceparent");
        let trace = sent.split('-').nth(1).expect("a trace").to_owned();
        assert_ne!(trace, TRACE, "{lines:?}");
        let server = collector.trace(&trace).await.server;
        assert!(server.parent_span_id.is_empty());
    }
}

#[tokio::test]
async fn a_span_says_why_the_request_failed() {
    let collector = Collector::start().await;
    let gateway = gateway(&collector.url(), &[]).await;
    let unavailable = Origin::start(|_| async {
        let mut response = Response::new(body(""));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    });
    gateway.add("shop", "s", unavailable.await.address).await;
    gateway.add("dead", "d", unused_address()).await;
    for (trace, path, status, error, attempts) in [
        ("a", "/shop/", "503", "503", &["503"][..]),
        (
            "b",
            "/dead/",
            "503",
            "connect_failed",
            &["connect_failed"; 3],
        ),
        // The client's mistake.
        ("c", "/missing/", "404", "", &[]),
    ] {
        let trace = trace.repeat(32);
        let traceparent = format!("00-{trace}-{CALLER}-01");
        let request = Request::get(gateway.url(path)).header("traceparent", traceparent);
        gateway.send(request).await;
        let Trace { server, client } = collector.trace(&trace).await;
        let expected = [("http.response.status_code", status), ("error.type", error)];
        assert_attributes(&server, &expected);
        let code = server.status.expect("a status").code();
        assert_eq!(code == Status::Error, !error.is_empty());
        let errors = client
            .iter()
            .map(|span| attribute(&span.attributes, "error.type"));
        assert_eq!(errors.collect::<Vec<_>>(), attempts);
    }
}

#[tokio::test]
async fn a_collector_that_is_down_costs_callers_nothing_and_spans_are_exported_when_it_is_back() {
    let address = unused_address();
    let timeout = ("OTEL_EXPORTER_OTLP_TIMEOUT", "100");
    let gateway = gateway(&format!("http://{address}"), &[timeout]).await;
    gateway
        .add("shop", "s", Origin::text("ok").await.address)
        .await;
    let lost = "waypost_gateway_spans_lost_total{reason=\"not_accepted\"} ";
    let exported = "waypost_gateway_spans_exported_total ";
    assert_eq!(metric(&gateway, lost).await, 0);
    assert_eq!(gateway.get("/shop/").await.status, StatusCode::OK);
    while metric(&gateway, lost).await == 0 {
        assert_eq!(gateway.get("/shop/").await.status, StatusCode::OK);
    }
    assert_eq!(metric(&gateway, exported).await, 0);

    let listener = std::net::TcpListener::bind(address).expect("its port");
    listener.set_nonblocking(true).expect("an option");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            RawOrigin::read_head(&mut stream).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            // A close with unread bytes would be a reset.
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        }
    });
    while metric(&gateway, exported).await == 0 {
        assert_eq!(gateway.get("/shop/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_collector_that_does_not_answer_fills_the_queue_and_no_more() {
    let silent = RawOrigin::start(|stream| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let variables = [
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
    ];
    let gateway = gateway(&format!("http://{}", silent.address), &variables).await;
    gateway
        .add("shop", "s", Origin::text("ok").await.address)
        .await;
    let lost = "waypost_gateway_spans_lost_total{reason=\"queue_full\"} ";
    while metric(&gateway, lost).await == 0 {
        assert_eq!(gateway.get("/shop/").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn spans_that_wait_are_exported_when_the_gateway_ends() {
    let collector = Collector::start().await;
    let hour = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let gzip = ("OTEL_EXPORTER_OTLP_COMPRESSION", "none");
    let mut gateway = gateway(&collector.url(), &[hour, gzip]).await;
    gateway
        .add("shop", "s", Origin::text("ok").await.address)
        .await;
    gateway.send(called(&gateway, "/shop/", "01")).await;
    gateway.begin_shutdown();
    gateway.stopped().await;
    assert_eq!(collector.spans().len(), 2);
}

/// The value of a metric.
async fn metric(gateway: &TestGateway, name: &str) -> u64 {
    let page = gateway.get("/metrics").await;
    let page = page.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name} in {page}"))
        .parse()
        .expect("a number")
}

#[tokio::test]
async fn an_authorisation_service_gets_the_span_of_the_request_as_its_parent() {
    let collector = Collector::start().await;
    let asked = Arc::new(Mutex::new(HeaderMap::new()));
    let last = Arc::clone(&asked);
    let guard = Origin::start(move |request: Request<_>| {
        *last.lock().expect("no panic") = request.headers().clone();
        async { Response::new(body("")) }
    })
    .await;
    let url = format!("http://{}/", guard.address);
    let routes = format!(
        "routes: [{{service: shop, match: {{path: /shop}}, external_auth: {{url: \"{url}\", timeout: 30s}}}}]"
    );
    let environment = environment(&collector.url(), &[]);
    let edit = |config: &mut Config| config.environment = environment;
    let routed = Routed::start_edited(&routes, &[], edit).await;
    let origin = Origin::echo().await;
    routed.gateway.add("shop", "shop-1", origin.address).await;
    routed
        .gateway
        .send(called(&routed.gateway, "/shop", "01"))
        .await;
    let Trace { server, .. } = collector.trace(TRACE).await;
    let asked = asked.lock().expect("no panic").clone();
    let parent = format!("00-{TRACE}-{}-01", hex(&server.span_id));
    assert_eq!(asked["traceparent"], parent);
    assert_eq!(asked["tracestate"], "vendor=1");
}
