//! The gateway's responses while the registry fails.

use std::path::Path;
use std::time::Duration;

use http::{Response, StatusCode};
use waypost::ServiceDiscoveryClient;
use waypost::directory::DirectoryOptions;

use crate::support::{FlakyRegistry, Origin, TestGateway, body, wait_until, with_deadline};

/// A gateway whose client has these options.
async fn gateway(registry: &FlakyRegistry, options: DirectoryOptions) -> TestGateway {
    let client = ServiceDiscoveryClient::builder()
        .provider(registry.clone())
        .directory_options(options)
        .build()
        .expect("a valid configuration");
    TestGateway::start_with_client(client, registry.memory.clone(), |_| ()).await
}

fn with_snapshot_file(path: &Path) -> DirectoryOptions {
    let mut options = DirectoryOptions::default();
    options.snapshot_file = Some(path.to_owned());
    options
}

#[tokio::test]
async fn a_gateway_that_starts_while_the_registry_is_down_serves_from_the_snapshot_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let origin = Origin::start(async |_| Response::new(body("hello"))).await;
    let registry = FlakyRegistry::new();
    let mut first = gateway(&registry, with_snapshot_file(&file)).await;
    first.add("auth", "a", origin.address).await;
    assert_eq!(first.get("/auth/").await.status, StatusCode::OK);
    wait_until("the snapshot file", || {
        std::fs::read_to_string(&file)
            .is_ok_and(|text| text.contains(r#""id":"a""#) && text.contains(r#""names":["auth"]"#))
    })
    .await;
    first.begin_shutdown();
    first.stopped().await;
    drop(first);

    registry.set_down(true);
    let second = gateway(&registry, with_snapshot_file(&file)).await;
    assert_eq!(second.get("/auth/").await.status, StatusCode::OK);
    let unknown = second.get("/billing/").await;
    assert_eq!(unknown.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(unknown.reason(), "registry_unreachable");
}

#[tokio::test]
async fn an_answer_older_than_the_limit_is_a_503_that_may_be_retried() {
    let origin = Origin::start(async |_| Response::new(body("hello"))).await;
    let registry = FlakyRegistry::new();
    let mut options = DirectoryOptions::default();
    options.max_stale = Some(Duration::from_millis(300));
    let gateway = gateway(&registry, options).await;
    gateway.add("auth", "a", origin.address).await;
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    registry.set_down(true);
    let refused = with_deadline("the answer to be too old", async {
        loop {
            let response = gateway.get("/auth/").await;
            if response.status != StatusCode::OK {
                return response;
            }
        }
    })
    .await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.reason(), "registry_stale");
    assert_eq!(refused.json()["retryable"], true);
    // The gateway recovers by itself.
    registry.set_down(false);
    with_deadline("the recovery", async {
        while gateway.get("/auth/").await.status != StatusCode::OK {}
    })
    .await;
}
