//! The ways in which a server lets its clients down.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use waypost_fake_kubernetes::ApiServer;

use crate::client::{Fixture, SLICES, event};

/// Something that does not come within this time hangs.
const PATIENCE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn killed_it_cuts_watches_and_comes_back_without_memory() {
    let it = Fixture::new().await;
    let revision = it.put_slice("web-1", "10.0.0.1");
    let path = format!("{SLICES}?watch=1&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    it.server.kill().await;
    watch.next().await.expect_err("an end in the middle");
    let refused = it.client.request(Method::GET, SLICES).send().await;
    assert!(refused.unwrap_err().is_connect());

    it.put_slice("web-2", "10.0.0.2");
    it.server.restart().await.unwrap();
    let mut watch = it.client.watch(&path).await;
    assert_eq!(watch.named().await.0, "ERROR");
    let (_, list) = it.client.get(SLICES).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn terminated_it_lets_watches_go_on_for_a_while() {
    let it = Fixture::with(ApiServer::builder().termination_tail(Duration::from_secs(3))).await;
    let path = format!("{SLICES}?watch=1&resourceVersion={}", it.server.revision());
    let mut watch = it.client.watch(&path).await;
    let ((), seen) = tokio::join!(it.server.terminate(), async {
        while it.client.request(Method::GET, SLICES).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        it.put_slice("web-1", "10.0.0.1");
        let seen = watch.named().await;
        assert_eq!(watch.next().await.unwrap(), None, "a clean end");
        seen
    });
    assert_eq!(seen, event("ADDED", "web-1"));
}

#[tokio::test]
async fn frozen_it_is_silent_and_thawed_it_goes_on() {
    let it = Fixture::new().await;
    let path = format!("{SLICES}?watch=1&resourceVersion={}", it.server.revision());
    let mut watch = it.client.watch(&path).await;
    it.server.freeze();
    it.put_slice("web-1", "10.0.0.1");
    assert!(watch.is_silent().await);
    // The system takes the connection, but nobody answers.
    let other = tokio::net::TcpStream::connect(it.server.address()).await;
    assert!(other.is_ok());
    let hangs = it
        .client
        .request(Method::GET, SLICES)
        .timeout(PATIENCE)
        .send();
    assert!(hangs.await.unwrap_err().is_timeout());
    it.server.thaw();
    assert_eq!(watch.named().await, event("ADDED", "web-1"));
}

#[tokio::test]
async fn without_etcd_the_cache_still_answers() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let path = format!("{SLICES}?watch=1&resourceVersion={}", it.server.revision());
    let mut open = it.client.watch(&path).await;
    it.server.faults().freeze_etcd(true);
    let hangs = async |method: Method, path: &str| {
        let request = it.client.request(method, path).json(&json!({}));
        request
            .timeout(PATIENCE)
            .send()
            .await
            .unwrap_err()
            .is_timeout()
    };
    assert!(hangs(Method::GET, SLICES).await);
    assert!(hangs(Method::GET, &format!("{SLICES}/web-1")).await);
    assert!(hangs(Method::DELETE, &format!("{SLICES}/web-1")).await);
    let (status, list) = it.client.get(&format!("{SLICES}?resourceVersion=0")).await;
    assert_eq!(
        (status.as_u16(), list["items"].as_array().map(Vec::len)),
        (200, Some(1))
    );
    for options in [
        "watch=1&resourceVersion=0",
        "watch=1&resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    ] {
        let mut watch = it.client.watch(&format!("{SLICES}?{options}")).await;
        assert_eq!(watch.named().await, event("ADDED", "web-1"));
    }
    assert_eq!(it.client.get("/readyz").await.1, "ok");
    assert!(open.is_silent().await);
    it.server.faults().heal();
    assert_eq!(it.client.get(SLICES).await.0.as_u16(), 200);
}

#[tokio::test]
async fn restored_from_a_backup_it_knows_no_later_revision() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let backup = it.server.backup();
    let revision = it.put_slice("web-2", "10.0.0.2");
    it.server.restore(&backup).await.unwrap();
    assert_eq!(it.server.revision(), backup.revision());
    let (_, list) = it.client.get(SLICES).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let path = format!("{SLICES}?watch=1&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    it.put_slice("web-3", "10.0.0.3");
    assert!(watch.is_silent().await);
}
