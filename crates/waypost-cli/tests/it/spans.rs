//! Spans that `waypost gateway` exports.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use rustix::process::Signal;
use tokio::net::TcpListener;
use waypost_testkit::free_ports;

use crate::support::*;

/// A gateway to the service `web`. Probes of its health have no spans.
fn gateway(port: u16, web: &str) -> tokio::process::Command {
    let mut command = waypost(&["gateway", "--internal", "off", "--port"]);
    command
        .arg(port.to_string())
        .env("SERVICE_WEB_URL", web)
        .env("RUST_LOG", "info");
    command
}

#[tokio::test]
async fn the_gateway_exports_its_last_spans_on_sigterm() {
    let exports: Arc<Mutex<Vec<Bytes>>> = Arc::default();
    let received = Arc::clone(&exports);
    let collect = move |body: Bytes| {
        received.lock().unwrap().push(body);
        async {}
    };
    let server = Router::new()
        .route("/v1/traces", post(collect))
        .route("/hello", get(async || "hello"));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, server).await });

    let [port] = free_ports();
    let mut command = gateway(port, &address);
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &address)
        .env("OTEL_SERVICE_NAME", "front-door")
        .env("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let mut gateway = Program::start(command);
    gateway.wait_for_output("spans are exported").await;
    let url = format!("http://127.0.0.1:{port}/web/hello");
    eventually("a response", async || {
        let response = http().get(&url).send().await.ok()?;
        (response.text().await.ok()? == "hello").then_some(())
    })
    .await;
    assert!(exports.lock().unwrap().is_empty());
    signal(gateway.pid(), Signal::TERM);
    assert_eq!(
        gateway.wait_for_exit().await,
        Some(0),
        "{}",
        gateway.output()
    );
    let exports = exports.lock().unwrap();
    let [export] = &exports[..] else {
        panic!("{} exports", exports.len());
    };
    let export = String::from_utf8_lossy(export);
    for text in ["front-door", "GET /web/", "/web/hello"] {
        assert!(export.contains(text), "no {text} in {export:?}");
    }
}

#[tokio::test]
async fn an_invalid_variable_of_opentelemetry_is_named() {
    let [port] = free_ports();
    let mut command = gateway(port, "http://127.0.0.1:1");
    command
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let mut gateway = Program::start(command);
    assert_ne!(gateway.wait_for_exit().await, Some(0));
    let output = gateway.output();
    assert!(output.contains("OTEL_EXPORTER_OTLP_PROTOCOL"), "{output}");
    assert!(output.contains("use http/protobuf"), "{output}");
}
