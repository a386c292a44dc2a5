//! The running service, from registration to shutdown.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::oneshot;
use waypost::ServiceDiscoveryClient;
use waypost::provider::MemoryProvider;
use waypost_ui::Config;

use crate::support::{Stack, TIMEOUT};

#[tokio::test]
async fn the_service_deregisters_and_stops_despite_open_event_streams() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let registry = MemoryProvider::new();
    let client = ServiceDiscoveryClient::new(Arc::new(registry.clone()));
    let (stop, stopped) = oneshot::channel::<()>();
    let config = Config {
        port: 0,
        provider: Some(Arc::new(registry)),
        ..Config::default()
    };
    let running = tokio::spawn(waypost_ui::run_until(config, async { _ = stopped.await }));

    let found = tokio::time::timeout(TIMEOUT, client.wait_for("ui"))
        .await
        .unwrap()
        .unwrap();
    let url = found.instances().next().unwrap().url().to_owned();
    let health = reqwest::get(format!("{url}/health")).await.unwrap();
    assert_eq!(health.status(), 200);
    let events = reqwest::get(format!("{url}/events")).await.unwrap();
    let mut events = events.bytes_stream();
    events.next().await.unwrap().unwrap();

    stop.send(()).unwrap();
    let stopped = tokio::time::timeout(TIMEOUT, running).await;
    stopped.expect("it should stop").unwrap().unwrap();
    assert!(
        client.discover_service("ui").await.is_err(),
        "it is deregistered"
    );
    // The stream ends by itself. After the drain timeout it would be cut off, which is an error.
    while let Some(event) = events.next().await {
        event.unwrap();
    }
}

#[tokio::test]
async fn the_error_for_a_port_in_use_names_the_address() {
    let stack = Stack::of(0).await;
    let config = Config {
        port: stack.ui.address.port(),
        ..Config::default()
    };
    let error = waypost_ui::run_until(config, std::future::pending())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(&stack.ui.address.to_string()),
        "{error}"
    );
}
