//! The whole program, from its registration to its end.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use serde_json::Value;
use tokio::sync::oneshot;
use waypost::{MemoryProvider, ServiceDiscoveryClient};
use waypost_ai_models::{Config, Upstream, run_until};

use crate::support::{SOON, Server};

#[tokio::test]
async fn it_registers_answers_as_what_it_registered_and_leaves() {
    let registry = MemoryProvider::new();
    let client = ServiceDiscoveryClient::new(Arc::new(registry.clone()));
    let gone = Server::of(Router::new()).await;
    let upstream = Upstream::new(&gone.url("/v1"), None).unwrap();
    drop(gone);
    let config = Config {
        port: 0,
        provider: Some(Arc::new(registry)),
        upstream: Some(upstream),
        ..Config::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(run_until(config, async { _ = stopped.await }));

    let found = tokio::time::timeout(SOON, client.wait_for("ai-models"))
        .await
        .unwrap()
        .unwrap();
    let instance = found.instances().next().unwrap();
    let get = async |path: &str| reqwest::get(instance.url_for(path)).await.unwrap();
    let models = get("/api/models").await;
    assert_eq!(
        models.headers()["x-served-by"],
        instance.id().as_str(),
        "answers bear the id of the registration"
    );

    let health = get("/health").await;
    assert_eq!(
        health.status(),
        200,
        "an upstream that is down is no reason to be taken out of service"
    );
    let report: Value = health.json().await.unwrap();
    assert_eq!(report["status"], "warning", "{report}");
    assert!(report.to_string().contains("can't be reached"), "{report}");

    stop.send(()).unwrap();
    tokio::time::timeout(SOON, running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(
        client.discover_service("ai-models").await.is_err(),
        "it left the registry"
    );
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = Server::of(Router::new()).await;
    let SocketAddr::V4(address) = taken.address else {
        unreachable!()
    };
    let config = Config {
        port: address.port(),
        ..Config::default()
    };
    let error = run_until(config, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}
