//! Lists: with selectors, with a limit, and with only the metadata.

use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};
use waypost_fake_kubernetes::manifest;

use crate::client::{Fixture, SLICES, answer, event};

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|it| it["metadata"]["name"].as_str())
        .collect()
}

#[tokio::test]
async fn a_list_has_the_current_revision_and_its_items_have_no_kind() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    it.put_slice("web-2", "10.0.0.2");
    let (_, list) = it.client.get(SLICES).await;
    assert_eq!(list["kind"], "EndpointSliceList");
    let revision = it.server.revision().to_string();
    assert_eq!(list["metadata"]["resourceVersion"], revision);
    assert_eq!(names(&list), ["web-1", "web-2"]);
    assert_eq!(list["items"][0]["kind"], Value::Null);
    assert_eq!(list["items"][0]["endpoints"][0]["addresses"][0], "10.0.0.1");
    let one = format!("{SLICES}?fieldSelector=metadata.name%3Dweb-2");
    assert_eq!(names(&it.client.get(&one).await.1), ["web-2"]);
}

#[tokio::test]
async fn a_list_with_a_limit_cannot_be_continued() {
    let it = Fixture::new().await;
    for number in 1..=3 {
        it.put_slice(&format!("web-{number}"), "10.0.0.1");
    }
    let (_, first) = it.client.get(&format!("{SLICES}?limit=2")).await;
    assert_eq!(names(&first), ["web-1", "web-2"]);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let path = format!("{SLICES}?limit=2&continue={token}");
    let (status, refused) = it.client.get(&path).await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (410, &json!("Expired"))
    );
    // The watch cache returns all objects whatever the limit.
    let path = format!("{SLICES}?limit=2&resourceVersion=0");
    let (_, all) = it.client.get(&path).await;
    assert_eq!(names(&all), ["web-1", "web-2", "web-3"]);
}

#[tokio::test]
async fn a_list_in_an_absent_namespace_is_empty() {
    let it = Fixture::new().await;
    let path = SLICES.replace("demo", "dmeo");
    let (status, list) = it.client.get(&path).await;
    assert_eq!((status.as_u16(), &list["items"]), (200, &json!([])));
}

#[tokio::test]
async fn objects_of_all_namespaces_are_listed_and_watched_together_but_not_created() {
    let it = Fixture::new().await;
    let services = "/api/v1/services";
    for namespace in ["shop", "demo"] {
        let service = manifest::service(namespace, &format!("web-{namespace}"), &[("http", 80)]);
        it.server.put(&service);
    }
    let (_, list) = it.client.get(services).await;
    assert_eq!(names(&list), ["web-demo", "web-shop"]);
    let revision = it.server.revision();
    let path = format!("{services}?watch=true&resourceVersion={revision}");
    let mut watch = it.client.watch(&path).await;
    it.server
        .put(&manifest::service("new", "web", &[("http", 80)]));
    assert_eq!(watch.named().await, event("ADDED", "web"));
    it.server.delete("services", "shop", "web-shop");
    assert_eq!(watch.named().await, event("DELETED", "web-shop"));
    let service = manifest::service("demo", "db", &[("http", 80)]);
    let (status, _) = it.client.send(Method::POST, services, &service).await;
    assert_eq!(status.as_u16(), 405);
}

#[tokio::test]
async fn a_list_can_have_the_metadata_alone() {
    let it = Fixture::new().await;
    it.put_slice("web-1", "10.0.0.1");
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let request = it.client.request(Method::GET, SLICES);
    let (_, list) = answer(request.header(ACCEPT, accept)).await;
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(names(&list), ["web-1"]);
    assert_eq!(list["items"][0]["endpoints"], Value::Null);
}

#[tokio::test]
async fn unsupported_requests_are_refused() {
    let it = Fixture::new().await;
    for (method, path, code) in [
        (Method::GET, format!("{SLICES}?resourceVersion=1"), 501),
        (Method::GET, format!("{SLICES}?dryRun=All"), 501),
        (Method::PATCH, format!("{SLICES}/web-1"), 405),
        (Method::GET, "/api/v1/namespaces/demo/pods".to_owned(), 404),
    ] {
        let (status, body) = it.client.send(method, &path, &json!({})).await;
        assert_eq!(status.as_u16(), code, "{path}: {body}");
    }
}
