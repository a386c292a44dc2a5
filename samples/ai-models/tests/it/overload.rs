//! The service under more load than it can handle.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use waypost::ServiceDiscoveryClient;
use waypost::provider::MemoryProvider;
use waypost_ai_models::{Config, run_until};

use crate::support::TIMEOUT;

/// A request of more than 500 kB that takes many seconds.
fn long_request() -> String {
    let text =
        "The registry at 10.0.0.1 keeps a lease for instance 17 of the gateway. ".repeat(128);
    json!({"model": "keywords", "input": vec![&text[..9_000]; 63]}).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overloaded_instance_rejects_long_requests_stays_healthy_and_serves_short_ones() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registry = MemoryProvider::new();
    let client = ServiceDiscoveryClient::new(Arc::new(registry.clone()));
    let config = Config {
        port: 0,
        provider: Some(Arc::new(registry)),
        ..Config::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let service = tokio::spawn(run_until(config, async { _ = stopped.await }));
    let found = tokio::time::timeout(TIMEOUT, client.wait_for("ai-models"));
    let found = found.await.unwrap().unwrap();
    let url = found.instances().next().unwrap().url().to_owned();
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
        .unwrap();

    let (rejected, mut rejections) = mpsc::unbounded_channel::<()>();
    let clients: Vec<_> = (0..32)
        .map(|_| {
            let (http, url, rejected) = (http.clone(), url.clone(), rejected.clone());
            tokio::spawn(async move {
                let request = http.post(format!("{url}/api/inference"));
                let response = request.body(long_request()).send().await.unwrap();
                assert_eq!(response.status(), 503);
                assert!(response.headers().contains_key("retry-after"));
                let _ = rejected.send(());
            })
        })
        .collect();

    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let running = cores.saturating_sub(1).max(1);
    for _ in running..32 {
        let rejection = tokio::time::timeout(TIMEOUT, rejections.recv()).await;
        rejection.expect("the service should be overloaded by now");
    }
    for _ in 0..60 {
        let request = json!({"model": "sentiment", "input": "What a wonderful day!"});
        let request = http.post(format!("{url}/api/inference")).json(&request);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let health = http.get(format!("{url}/health")).send().await.unwrap();
        let status = health.status();
        let report: Value = health.json().await.unwrap();
        assert_eq!(status, 200, "{report}");
    }
    for client in clients {
        client.abort();
    }
    stop.send(()).unwrap();
    tokio::time::timeout(TIMEOUT, service)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
