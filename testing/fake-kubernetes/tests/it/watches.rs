//! Watches: where they begin, which events they send, and how they end.

use std::time::Duration;

use serde_json::json;
use waypost_fake_kubernetes::{ApiServer, manifest};

use crate::client::{Fixture, SLICES, event};

/// The number of changes while the client doesn't read.
const CHANGES: usize = 500;

const INITIAL: &str = "watch=true&allowWatchBookmarks=true&sendInitialEvents=true";

#[tokio::test]
async fn each_change_after_a_revision_is_an_event() {
    let it = Fixture::new().await;
    let revision = it.put_slice("web-1", "10.0.0.1");
    let path = format!("{SLICES}?watch=true&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    it.put_slice("web-2", "10.0.0.2");
    it.put_slice("web-2", "10.0.0.3");
    // The same content is no change.
    it.put_slice("web-2", "10.0.0.3");
    it.server.delete("endpointslices", "demo", "web-2");
    assert_eq!(watch.named().await, event("ADDED", "web-2"));
    assert_eq!(watch.named().await, event("MODIFIED", "web-2"));
    let deleted = watch.next().await.unwrap().unwrap();
    assert_eq!(deleted["type"], "DELETED");
    assert_eq!(deleted["object"]["kind"], "EndpointSlice");
    assert_eq!(
        deleted["object"]["metadata"]["resourceVersion"],
        it.server.revision().to_string()
    );
    assert!(watch.is_silent().await);
}

#[tokio::test]
async fn a_watch_without_a_revision_begins_with_all_objects() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    for path in ["?watch=true", "?watch=true&resourceVersion=0"] {
        let mut watch = it.client.watch(&format!("{SLICES}{path}")).await;
        assert_eq!(watch.named().await, event("ADDED", "web-1"));
        assert!(watch.is_silent().await);
    }
}

#[tokio::test]
async fn an_object_that_is_no_longer_selected_is_deleted() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let path = format!(
        "{SLICES}?watch=true&labelSelector=kubernetes.io%2Fservice-name%20in%20(web,api)\
         &resourceVersion={}",
        it.server.revision()
    );
    let mut watch = it.client.watch(&path).await;
    it.server
        .put(&manifest::slice("demo", "other", "web-1", &[], []));
    assert_eq!(watch.named().await, event("DELETED", "web-1"));
    it.put_slice("web-1", "10.0.0.1");
    assert_eq!(watch.named().await, event("ADDED", "web-1"));
}

#[tokio::test]
async fn a_list_can_be_streamed() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let path = format!("{SLICES}?{INITIAL}&resourceVersionMatch=NotOlderThan");
    let mut watch = it.client.watch(&path).await;
    assert_eq!(watch.named().await, event("ADDED", "web-1"));
    let end = watch.next().await.unwrap().unwrap();
    assert_eq!(
        end,
        json!({ "type": "BOOKMARK", "object": {
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {
                "resourceVersion": it.server.revision().to_string(),
                "annotations": { "k8s.io/initial-events-end": "true" },
            },
        }})
    );
    it.put_slice("web-2", "10.0.0.2");
    assert_eq!(watch.named().await, event("ADDED", "web-2"));
}

#[tokio::test]
async fn a_streamed_list_needs_not_older_than_and_the_feature() {
    let it = Fixture::new().await;
    let (status, body) = it.client.get(&format!("{SLICES}?{INITIAL}")).await;
    assert_eq!((status.as_u16(), &body["reason"]), (422, &json!("Invalid")));
    assert_eq!(
        body["message"],
        "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
         sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
    );
    it.server.faults().disable_watch_list(true);
    let path = format!("{SLICES}?{INITIAL}&resourceVersionMatch=NotOlderThan");
    let (status, body) = it.client.get(&path).await;
    assert_eq!(status.as_u16(), 422);
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("sendInitialEvents: Forbidden"),
        "{message}"
    );
}

#[tokio::test]
async fn bookmarks_come_at_intervals_and_before_the_end() {
    let interval = Duration::from_millis(200);
    let it = Fixture::with(ApiServer::builder().bookmark_interval(interval)).await;
    let path = format!(
        "{SLICES}?watch=true&allowWatchBookmarks=true&timeoutSeconds=3&resourceVersion={}",
        it.server.revision()
    );
    let mut watch = it.client.watch(&path).await;
    // A change of another kind raises their revision.
    it.server
        .put(&manifest::service("demo", "web", &[("http", 80)]));
    let mut bookmarks = Vec::new();
    while let Some(event) = watch.next().await.unwrap() {
        assert_eq!(event["type"], "BOOKMARK");
        bookmarks.push(event["object"]["metadata"]["resourceVersion"].clone());
    }
    assert!(bookmarks.len() >= 3, "{bookmarks:?}");
    let now = it.server.revision().to_string();
    assert_eq!(bookmarks.last(), Some(&json!(now)));
}

#[tokio::test]
async fn an_expired_revision_is_an_error_in_the_stream() {
    let it = Fixture::new().await;
    let revision = it.put_slice("web-1", "10.0.0.1");
    it.put_slice("web-2", "10.0.0.2");
    it.server.expire_history();
    let path = format!("{SLICES}?watch=true&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    assert_eq!(watch.response.status(), 200);
    let error = watch.next().await.unwrap().unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!(error["object"]["code"], 410);
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(
        error["object"]["message"],
        format!("too old resource version: {revision} ({})", revision + 1)
    );
    assert_eq!(watch.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_watch_at_a_future_revision_is_silent_until_it_comes() {
    let bookmarks = Duration::from_millis(50);
    let it = Fixture::with(ApiServer::builder().bookmark_interval(bookmarks)).await;
    let future = it.server.revision() + 2;
    let path = format!("{SLICES}?watch=true&allowWatchBookmarks=true&resourceVersion={future}");
    let mut watch = it.client.watch(&path).await;
    assert_eq!(watch.response.status(), 200);
    it.put_slice("web-1", "10.0.0.1");
    it.put_slice("web-2", "10.0.0.2");
    it.put_slice("web-3", "10.0.0.3");
    assert_eq!(watch.named().await, event("ADDED", "web-3"));

    let (_, list) = it.client.get(SLICES).await;
    let far = it.server.revision() + 1000;
    let mut watch = it
        .client
        .watch(&format!(
            "{SLICES}?watch=true&allowWatchBookmarks=true&resourceVersion={far}"
        ))
        .await;
    assert!(watch.is_silent().await);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn a_slow_reader_is_disconnected_and_can_continue_without_loss() {
    let it = Fixture::with(ApiServer::builder().slow_reader(Duration::from_millis(50), 100)).await;
    let revision = it.server.revision();
    let from = |revision: u64| format!("{SLICES}?watch=true&resourceVersion={revision}");
    let mut watch = it.client.watch(&from(revision)).await;
    assert_eq!(it.server.open_watches(), 1);
    // More data than all buffers can hold.
    let mut slice = manifest::slice("demo", "web", "web-1", &[("http", 80)], []);
    slice["metadata"]["annotations"]["padding"] = "x".repeat(60_000).into();
    for change in 1..=CHANGES {
        slice["metadata"]["annotations"]["change"] = change.to_string().into();
        it.server.put(&slice);
    }
    while it.server.open_watches() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut seen = revision;
    let mut count = 0;
    loop {
        while let Some(event) = watch.next().await.unwrap() {
            let revision = event["object"]["metadata"]["resourceVersion"].as_str();
            seen = revision.unwrap().parse().unwrap();
            count += 1;
            if count == CHANGES {
                return;
            }
        }
        watch = it.client.watch(&from(seen)).await;
    }
}
