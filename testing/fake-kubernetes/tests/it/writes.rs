//! Writes, and the words of what is refused.

use reqwest::Method;
use serde_json::{Value, json};
use waypost_fake_kubernetes::{ApiServer, manifest};

use crate::client::{Fixture, SLICES, event};

fn slice(addresses: &[&str]) -> Value {
    let endpoints = addresses.iter().map(|it| manifest::endpoint(it));
    manifest::slice("demo", "web", "web-1", &[("http", 80)], endpoints)
}

#[tokio::test]
async fn loopback_addresses_are_refused_unless_a_test_needs_them() {
    let it = Fixture::new().await;
    let (status, refused) = it
        .client
        .send(Method::POST, SLICES, &slice(&["127.0.0.1"]))
        .await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (422, &json!("Invalid"))
    );
    assert_eq!(
        refused["message"],
        "EndpointSlice.discovery.k8s.io \"web-1\" is invalid: endpoints[0].addresses[0]: Invalid \
         value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
    );
    let it = Fixture::with(ApiServer::builder().allow_loopback(true)).await;
    let (status, _) = it
        .client
        .send(Method::POST, SLICES, &slice(&["127.0.0.1"]))
        .await;
    assert_eq!(status.as_u16(), 201);
}

#[tokio::test]
async fn what_is_empty_comes_back_as_null() {
    let it = Fixture::new().await;
    let mut empty = slice(&[]);
    empty["ports"] = json!([]);
    let (_, made) = it.client.send(Method::POST, SLICES, &empty).await;
    assert!(made["ports"].is_null() && made.as_object().unwrap().contains_key("ports"));
    assert!(made["endpoints"].is_null());
}

#[tokio::test]
async fn an_update_of_what_has_changed_is_refused() {
    let it = Fixture::new().await;
    let (_, first) = it
        .client
        .send(Method::POST, SLICES, &slice(&["10.0.0.1"]))
        .await;
    let path = format!("{SLICES}/web-1");
    let mut second = first.clone();
    second["endpoints"][0]["addresses"] = json!(["10.0.0.2"]);
    let (status, stored) = it.client.send(Method::PUT, &path, &second).await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!(stored["metadata"]["generation"], 2);
    assert_eq!(stored["metadata"]["uid"], first["metadata"]["uid"]);
    let (status, refused) = it.client.send(Method::PUT, &path, &first).await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (409, &json!("Conflict"))
    );
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on endpointslices.discovery.k8s.io \"web-1\": the object \
         has been modified; please apply your changes to the latest version and try again"
    );
    let (status, refused) = it.client.send(Method::POST, SLICES, &slice(&[])).await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (409, &json!("AlreadyExists"))
    );
}

#[tokio::test]
async fn the_type_of_addresses_stays() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let mut other = slice(&["fd00::1"]);
    other["addressType"] = "IPv6".into();
    let (status, refused) = it
        .client
        .send(Method::PUT, &format!("{SLICES}/web-1"), &other)
        .await;
    assert_eq!(status.as_u16(), 422);
    assert_eq!(
        refused["details"]["causes"][0]["message"],
        "Invalid value: \"IPv6\": field is immutable"
    );
}

#[tokio::test]
async fn a_dry_run_leaves_nothing() {
    let it = Fixture::new().await;
    let path = format!("{SLICES}?dryRun=All");
    let (status, _) = it
        .client
        .send(Method::POST, &path, &slice(&["10.0.0.1"]))
        .await;
    assert_eq!(status.as_u16(), 201);
    let (status, _) = it.client.get(&format!("{SLICES}/web-1")).await;
    assert_eq!(status.as_u16(), 404);
}

#[tokio::test]
async fn slices_go_with_the_service_that_owns_them_and_all_with_their_namespace() {
    let it =
        Fixture::with(ApiServer::builder().namespace_deletion(std::time::Duration::ZERO)).await;
    it.server
        .put(&manifest::service("demo", "web", &[("http", 80)]));
    let uid = it.server.get("services", "demo", "web").unwrap()["metadata"]["uid"].clone();
    let mut owned = slice(&["10.0.0.1"]);
    owned["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "Service", "name": "web", "uid": uid }]);
    it.server.put(&owned);
    it.put_slice("web-2", "10.0.0.2");
    let path = format!("{SLICES}?watch=1&resourceVersion={}", it.server.revision());
    let mut watch = it.client.watch(&path).await;
    let service = "/api/v1/namespaces/demo/services/web";
    let (status, gone) = it.client.send(Method::DELETE, service, &json!({})).await;
    assert_eq!((status.as_u16(), &gone["status"]), (200, &json!("Success")));
    assert_eq!(watch.named().await, event("DELETED", "web-1"));
    let (_, terminating) = it
        .client
        .send(Method::DELETE, "/api/v1/namespaces/demo", &json!({}))
        .await;
    assert_eq!(terminating["status"]["phase"], "Terminating");
    assert_eq!(watch.named().await, event("DELETED", "web-2"));
    let (status, refused) = it.client.send(Method::POST, SLICES, &slice(&[])).await;
    // Whether it is still going or already gone, nothing new can be there.
    assert!(matches!(status.as_u16(), 403 | 404), "{refused}");
}
