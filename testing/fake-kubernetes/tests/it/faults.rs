//! The ways in which a server fails.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use waypost_fake_kubernetes::ApiServer;

use crate::client::{Fixture, SLICES, event};

/// A request without a response after this time hangs.
const HANGING: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_killed_server_breaks_watches_and_restarts_without_its_history() {
    let it = Fixture::new().await;
    let revision = it.put_slice("web-1", "10.0.0.1");
    let path = format!("{SLICES}?watch=true&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    it.server.kill().await;
    watch.next().await.expect_err("the watch ended cleanly");
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
async fn a_terminated_server_serves_open_watches_for_a_while() {
    let it = Fixture::with(ApiServer::builder().termination_tail(Duration::from_secs(3))).await;
    let path = format!(
        "{SLICES}?watch=true&resourceVersion={}",
        it.server.revision()
    );
    let mut watch = it.client.watch(&path).await;
    let ((), seen) = tokio::join!(it.server.terminate(), async {
        while it.client.request(Method::GET, SLICES).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        it.put_slice("web-1", "10.0.0.1");
        let seen = watch.named().await;
        assert_eq!(
            watch.next().await.unwrap(),
            None,
            "the watch should continue"
        );
        seen
    });
    assert_eq!(seen, event("ADDED", "web-1"));
}

#[tokio::test]
async fn a_frozen_server_is_silent_until_it_is_thawed() {
    let it = Fixture::new().await;
    let path = format!(
        "{SLICES}?watch=true&resourceVersion={}",
        it.server.revision()
    );
    let mut watch = it.client.watch(&path).await;
    it.server.freeze();
    it.put_slice("web-1", "10.0.0.1");
    assert!(watch.is_silent().await);
    // The system accepts the connection, the server does not answer.
    let other = tokio::net::TcpStream::connect(it.server.address()).await;
    assert!(other.is_ok());
    let hangs = it
        .client
        .request(Method::GET, SLICES)
        .timeout(HANGING)
        .send();
    assert!(hangs.await.unwrap_err().is_timeout());
    it.server.thaw();
    assert_eq!(watch.named().await, event("ADDED", "web-1"));
}

#[tokio::test]
async fn the_watch_cache_answers_while_etcd_is_frozen() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let path = format!(
        "{SLICES}?watch=true&resourceVersion={}",
        it.server.revision()
    );
    let mut open = it.client.watch(&path).await;
    it.server.faults().freeze_etcd(true);
    let hangs = async |method: Method, path: &str| {
        let request = it.client.request(method, path).json(&json!({}));
        request
            .timeout(HANGING)
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
        "watch=true&resourceVersion=0",
        "watch=true&resourceVersion=0&sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
    ] {
        let mut watch = it.client.watch(&format!("{SLICES}?{options}")).await;
        assert_eq!(watch.named().await, event("ADDED", "web-1"));
    }
    assert!(open.is_silent().await);
    it.server.faults().heal();
    assert_eq!(it.client.get(SLICES).await.0.as_u16(), 200);
}

#[tokio::test]
async fn a_restored_server_is_silent_about_later_revisions() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let backup = it.server.backup();
    let revision = it.put_slice("web-2", "10.0.0.2");
    it.server.restore(&backup).await.unwrap();
    assert_eq!(it.server.revision(), backup.revision());
    let (_, list) = it.client.get(SLICES).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let path = format!("{SLICES}?watch=true&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    it.put_slice("web-3", "10.0.0.3");
    assert!(watch.is_silent().await);
}

#[tokio::test]
async fn a_restore_without_a_restart_keeps_watches_open_and_silent() {
    let it = Fixture::new().await;
    let backup = it.server.backup();
    it.put_slice("web-1", "10.0.0.1");
    let path = format!(
        "{SLICES}?watch=true&resourceVersion={}",
        it.server.revision()
    );
    let mut watch = it.client.watch(&path).await;
    it.server.restore_without_restart(&backup);
    let (_, list) = it.client.get(SLICES).await;
    assert_eq!(list["items"], json!([]));
    it.put_slice("web-2", "10.0.0.2");
    assert!(watch.is_silent().await);
    it.put_slice("web-3", "10.0.0.3");
    assert_eq!(watch.named().await, event("ADDED", "web-3"));
}

#[tokio::test]
async fn a_failing_server_answers_each_request_with_the_same_status() {
    let it = Fixture::new().await;
    for (code, reason) in [(500, "InternalError"), (503, "ServiceUnavailable")] {
        it.server.faults().fail_with(Some(code));
        let (status, refused) = it.client.get(SLICES).await;
        assert_eq!(
            (status.as_u16(), &refused["reason"]),
            (code, &json!(reason))
        );
    }
    it.server.faults().fail_with(Some(429));
    let response = it.client.request(Method::GET, SLICES).send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    let text = response.text().await.unwrap();
    assert_eq!(text, "Too many requests, please try again later.\n");
    let codes: Vec<_> = it.server.requests().iter().map(|it| it.code).collect();
    assert_eq!(codes, [Some(500), Some(503), Some(429)]);
}
