//! Writes, and how they are refused.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use waypost_fake_kubernetes::{ApiServer, manifest};

use crate::client::{Fixture, SLICES, event};

const WEB: &str = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices/web-1";

fn slice(addresses: &[&str]) -> Value {
    let endpoints = addresses.iter().map(|it| manifest::endpoint(it));
    manifest::slice("demo", "web", "web-1", &[("http", 80)], endpoints)
}

fn assert_refused((status, body): (StatusCode, Value), code: u16, reason: &str) {
    assert_eq!(
        (status.as_u16(), &body["reason"]),
        (code, &json!(reason)),
        "{body}"
    );
}

#[tokio::test]
async fn a_created_object_comes_back_complete_and_cannot_be_created_again() {
    let it = Fixture::new().await;
    let (status, made) = it.client.send(Method::POST, SLICES, &slice(&[])).await;
    assert_eq!(status.as_u16(), 201);
    assert_eq!(made["kind"], "EndpointSlice");
    assert!(made["metadata"]["uid"].is_string());
    assert!(made["endpoints"].is_null(), "an empty list is null");
    let again = it.client.send(Method::POST, SLICES, &slice(&[])).await;
    assert_refused(again, 409, "AlreadyExists");
}

#[tokio::test]
async fn an_update_of_an_earlier_version_is_refused() {
    let it = Fixture::new().await;
    let object = slice(&["10.0.0.1"]);
    let (_, first) = it.client.send(Method::POST, SLICES, &object).await;
    let mut second = first.clone();
    second["endpoints"][0]["addresses"] = json!(["10.0.0.2"]);
    let (status, stored) = it.client.send(Method::PUT, WEB, &second).await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!(stored["metadata"]["uid"], first["metadata"]["uid"]);
    let refused = it.client.send(Method::PUT, WEB, &first).await;
    assert_refused(refused, 409, "Conflict");
}

#[tokio::test]
async fn the_address_type_cannot_be_changed() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let mut other = slice(&["fd00::1"]);
    other["addressType"] = "IPv6".into();
    let refused = it.client.send(Method::PUT, WEB, &other).await;
    assert_refused(refused, 422, "Invalid");
}

#[tokio::test]
async fn an_object_of_another_kind_or_name_is_refused() {
    let it = Fixture::new().await;
    let service = manifest::service("demo", "web-1", &[("http", 80)]);
    let refused = it.client.send(Method::POST, SLICES, &service).await;
    assert_refused(refused, 400, "BadRequest");
    let path = format!("{SLICES}/web-2");
    let refused = it.client.send(Method::PUT, &path, &slice(&[])).await;
    assert_refused(refused, 400, "BadRequest");
}

#[tokio::test]
async fn a_deletion_can_be_of_one_version_only() {
    let it = Fixture::new().await;
    let first = it.put_slice("web-1", "10.0.0.1");
    let second = it.put_slice("web-1", "10.0.0.2");
    let delete = async |revision: u64| {
        let version = json!({ "resourceVersion": revision.to_string() });
        let options = json!({ "preconditions": version });
        it.client.send(Method::DELETE, WEB, &options).await
    };
    assert_refused(delete(first).await, 409, "Conflict");
    assert_eq!(delete(second).await.0.as_u16(), 200);
    assert_refused(delete(second).await, 404, "NotFound");
}

#[tokio::test]
async fn a_namespace_is_deleted_with_all_its_objects() {
    let builder = ApiServer::builder().namespace_deletion(Duration::from_millis(500));
    let it = Fixture::with(builder).await;
    it.put_slice("web-1", "10.0.0.1");
    let revision = it.server.revision();
    let path = format!("{SLICES}?watch=true&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    assert!(it.server.delete("namespaces", "", "demo"));
    let refused = it.client.send(Method::POST, SLICES, &slice(&[])).await;
    assert_refused(refused, 403, "Forbidden");
    assert_eq!(watch.named().await, event("DELETED", "web-1"));
    let refused = it.client.send(Method::POST, SLICES, &slice(&[])).await;
    assert_refused(refused, 404, "NotFound");
}
