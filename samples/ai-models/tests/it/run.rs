//! The running service, from registration to shutdown.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use serde_json::Value;
use tokio::sync::oneshot;
use waypost::ServiceDiscoveryClient;
use waypost::provider::MemoryProvider;
use waypost_ai_models::{Config, Upstream, run_until};

use crate::support::{Server, TIMEOUT};

#[tokio::test]
async fn the_service_registers_serves_and_deregisters() {
    let registry = MemoryProvider::new();
    let client = ServiceDiscoveryClient::new(Arc::new(registry.clone()));
    let stopped_server = Server::of(Router::new()).await;
    let upstream = Upstream::new(&stopped_server.url("/v1"), None).unwrap();
    drop(stopped_server);
    let config = Config {
        port: 0,
        provider: Some(Arc::new(registry)),
        upstream: Some(upstream),
        ..Config::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run_until(config, async { _ = stopped.await }));

    let found = tokio::time::timeout(TIMEOUT, client.wait_for("ai-models"))
        .await
        .unwrap()
        .unwrap();
    let instance = found.instances().next().unwrap();
    let get = async |path: &str| reqwest::get(instance.url_for(path)).await.unwrap();
    let models = get("/api/models").await;
    assert_eq!(
        models.headers()["x-served-by"],
        instance.id().as_str(),
        "responses carry the registered ID"
    );

    let health = get("/health").await;
    assert_eq!(
        health.status(),
        200,
        "the service is healthy without its upstream"
    );
    let report: Value = health.json().await.unwrap();
    assert_eq!(report["status"], "warning", "{report}");
    assert!(report.to_string().contains("can't be reached"), "{report}");

    stop.send(()).unwrap();
    tokio::time::timeout(TIMEOUT, running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        client.discover_service("ai-models").await.is_err(),
        "it is deregistered"
    );
}

#[tokio::test]
async fn the_error_for_a_port_in_use_names_the_address() {
    let server = Server::of(Router::new()).await;
    let SocketAddr::V4(address) = server.address else {
        unreachable!()
    };
    let config = Config {
        port: address.port(),
        ..Config::default()
    };
    let error = run_until(config, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
