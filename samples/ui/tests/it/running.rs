//! The whole program, from its registration to its end.

use std::sync::Arc;

use futures_util::StreamExt;
use tokio::sync::oneshot;
use waypost::{MemoryProvider, ServiceDiscoveryClient};
use waypost_ui::Config;

use crate::support::{SOON, Stack};

#[tokio::test]
async fn it_registers_and_leaves_without_waiting_for_those_who_watch() {
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

    let found = tokio::time::timeout(SOON, client.wait_for("ui"))
        .await
        .unwrap()
        .unwrap();
    let url = found.instances().next().unwrap().url().to_owned();
    let health = reqwest::get(format!("{url}/health")).await.unwrap();
    assert_eq!(health.status(), 200);
    let live = reqwest::get(format!("{url}/events")).await.unwrap();
    let mut live = live.bytes_stream();
    live.next().await.unwrap().unwrap();

    stop.send(()).unwrap();
    // Shorter than the drain time, which an open live picture would use up.
    let ended = tokio::time::timeout(std::time::Duration::from_secs(9), running).await;
    ended.expect("it should end at once").unwrap().unwrap();
    assert!(
        client.discover_service("ui").await.is_err(),
        "it left the registry"
    );
    while let Some(Ok(_)) = live.next().await {}
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
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
