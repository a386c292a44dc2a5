//! The Gateway API's custom resources: all namespaces, generations, and the status subresource.

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};

use crate::client::{Client, Fixture, answer, event};

const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
const STATUS: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/orders/status";

fn route(hostname: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "namespace": "shop", "name": "orders" },
        "spec": { "hostnames": [hostname] },
    })
}

fn condition(status: &str) -> Value {
    json!({
        "type": "Accepted", "status": status, "reason": "Accepted", "message": "",
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

async fn patch(client: &Client, patch: &Value) -> (u16, Value) {
    let request = client.request(Method::PATCH, STATUS);
    let request = request.header(CONTENT_TYPE, "application/merge-patch+json");
    let (status, body) = answer(request.body(patch.to_string())).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn a_change_of_the_spec_raises_the_generation_and_a_status_does_not() {
    let it = Fixture::new().await;
    it.server.put(&route("a.example"));
    let mut changed = route("b.example");
    changed["status"] = json!({ "ignored": true });
    it.server.put(&changed);
    let stored = it.server.get("httproutes", "shop", "orders").unwrap();
    assert_eq!(stored["metadata"]["generation"], 2);
    assert!(stored["status"].is_null());

    let parents = json!([{ "conditions": [condition("True")] }]);
    let (code, body) = patch(&it.client, &json!({ "status": { "parents": parents } })).await;
    assert_eq!((code, &body["status"]["parents"]), (200, &parents));
    assert_eq!(body["metadata"]["generation"], 2);
    it.server.put(&route("c.example"));
    let stored = it.server.get("httproutes", "shop", "orders").unwrap();
    assert_eq!(stored["status"]["parents"], parents);
}

#[tokio::test]
async fn a_status_for_an_earlier_version_or_with_a_bad_condition_is_refused() {
    let it = Fixture::new().await;
    let before = it.server.put(&route("a.example")).to_string();
    it.server.put(&route("b.example"));
    let old = json!({ "metadata": { "resourceVersion": before }, "status": {} });
    assert_eq!(patch(&it.client, &old).await.0, 409);
    let bad = json!({ "status": { "parents": [{ "conditions": [condition("yes")] }] } });
    assert_eq!(patch(&it.client, &bad).await.0, 422);
}

#[tokio::test]
async fn a_watch_of_all_namespaces_needs_a_cluster_role() {
    let it = Fixture::new().await;
    it.server.put(&route("a.example"));
    let reader = Client::new(&it.server, Some(it.server.add_user("reader")));
    let rules = json!([{
        "apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"],
        "verbs": ["list", "watch"],
    }]);
    it.server.grant("reader", "shop", &rules);
    let (status, body) = reader.get(ROUTES).await;
    assert_eq!(status.as_u16(), 403);
    assert_eq!(
        body["message"],
        "httproutes.gateway.networking.k8s.io is forbidden: User \"reader\" cannot list resource \
         \"httproutes\" in API group \"gateway.networking.k8s.io\" at the cluster scope"
    );
    it.server.grant("reader", "", &rules);
    let mut watch = reader.watch(&format!("{ROUTES}?watch=true")).await;
    assert_eq!(watch.named().await, event("ADDED", "orders"));
    it.server.delete("httproutes", "shop", "orders");
    assert_eq!(watch.named().await, event("DELETED", "orders"));
    assert_eq!(patch(&reader, &json!({ "status": {} })).await.0, 403);

    it.server.faults().uninstall_gateway_api(true);
    assert_eq!(reader.get(ROUTES).await.0.as_u16(), 404);
}
