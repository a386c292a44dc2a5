//! Following objects of all namespaces, and writing their status.

use serde_json::{Value, json};
use tokio::time::timeout;
use waypost_core::ProviderErrorKind;
use waypost_fake_kubernetes::ApiServer;
use waypost_kubernetes::KubernetesProvider;
use waypost_kubernetes::objects::{ObjectKey, ObjectKind, ObjectWatch, Objects, StatusPatch};

use crate::{TIMEOUT, provider, start_server};

const SERVICES: ObjectKind = ObjectKind::new("", "v1", "services");
const ROUTES: ObjectKind = ObjectKind::new("gateway.networking.k8s.io", "v1", "httproutes");

fn route(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "namespace": namespace, "name": name }, "spec": {},
    })
}

fn watch(provider: &KubernetesProvider) -> ObjectWatch<Value> {
    provider
        .objects()
        .watch(&[SERVICES, ROUTES], |_, object| Some(object))
}

/// The routes, once they fulfil a condition.
async fn until(
    watch: &mut ObjectWatch<Value>,
    condition: impl Fn(&Objects<Value>) -> bool,
) -> Objects<Value> {
    let found = async {
        loop {
            let routes = watch.changed().await.unwrap().remove(1);
            if condition(&routes) {
                return routes;
            }
        }
    };
    timeout(TIMEOUT, found)
        .await
        .expect("no such state in time")
}

fn has_keys(routes: &Objects<Value>, keys: &[&str]) -> bool {
    routes
        .iter()
        .map(|(key, _)| key.to_string())
        .eq(keys.iter().copied())
}

async fn until_keys(watch: &mut ObjectWatch<Value>, keys: &[&str]) -> Objects<Value> {
    until(watch, |routes| routes.is_listed() && has_keys(routes, keys)).await
}

#[tokio::test]
async fn objects_of_all_namespaces_are_followed() {
    let server = start_server().await;
    server.put(&route("shop", "orders"));
    let mut watch = watch(&provider(&server));
    until_keys(&mut watch, &["shop/orders"]).await;
    server.put(&route("pay", "orders"));
    until_keys(&mut watch, &["pay/orders", "shop/orders"]).await;
    server.delete("httproutes", "shop", "orders");
    until_keys(&mut watch, &["pay/orders"]).await;
}

#[tokio::test]
async fn an_outage_and_an_expired_version_keep_the_objects() {
    let server = start_server().await;
    server.put(&route("shop", "orders"));
    let mut watch = watch(&provider(&server));
    until_keys(&mut watch, &["shop/orders"]).await;
    server.kill().await;
    let stale = until(&mut watch, |routes| routes.error().is_some()).await;
    assert!(has_keys(&stale, &["shop/orders"]) && stale.confirmed_at().is_some());
    // The restarted server has no history, so the watch gets a 410 and everything is listed again.
    server.restart().await.unwrap();
    server.put(&route("shop", "pay"));
    let keys = ["shop/orders", "shop/pay"];
    until(&mut watch, |routes| {
        routes.error().is_none() && has_keys(routes, &keys)
    })
    .await;
}

#[tokio::test]
async fn a_missing_kind_and_a_missing_permission_are_named() {
    let server = start_server().await;
    server.faults().uninstall_gateway_api(true);
    let mut missing = watch(&provider(&server));
    let routes = until(&mut missing, |routes| routes.error().is_some()).await;
    assert!(routes.is_refused());
    let error = routes.error().unwrap().to_string();
    assert!(
        error.contains("no httproutes.gateway.networking.k8s.io of version v1"),
        "{error}"
    );
    server.faults().uninstall_gateway_api(false);
    until_keys(&mut missing, &[]).await;

    let mut denied = watch(&provider_of(&server, "reader"));
    let routes = until(&mut denied, |routes| routes.error().is_some()).await;
    let error = routes.error().unwrap();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorised);
    let cause = "cannot list resource \"httproutes\" in API group \"gateway.networking.k8s.io\" at \
                 the cluster scope";
    // The first attempt may be the watch.
    let message = error.message().replace("cannot watch", "cannot list");
    assert!(message.contains(cause), "{message}");
}

fn provider_of(server: &ApiServer, user: &str) -> KubernetesProvider {
    server.add_user(user);
    let kubeconfig = server.kubeconfig_of(user).unwrap();
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    builder.build().unwrap()
}

#[tokio::test]
async fn one_object_is_read_with_the_permission_to_get_it_by_name() {
    let server = start_server().await;
    server.put(&route("shop", "orders"));
    server.put(&route("shop", "carts"));
    server.add_user("reader");
    let rules = json!([{
        "apiGroups": ["gateway.networking.k8s.io"], "resources": ["httproutes"],
        "resourceNames": ["orders", "gone"], "verbs": ["get"],
    }]);
    server.grant("reader", "shop", &rules);
    let kubeconfig = server.kubeconfig_of("reader").unwrap();
    let provider = KubernetesProvider::builder().kubeconfig(kubeconfig).build();
    let objects = provider.unwrap().objects();
    let get = async |name: &str| objects.get(&ROUTES, &ObjectKey::new("shop", name)).await;
    let found = get("orders").await.unwrap().unwrap();
    assert_eq!(found["metadata"]["name"], "orders");
    assert_eq!(get("gone").await.unwrap(), None);
    let refused = get("carts").await.unwrap_err();
    assert_eq!(refused.kind(), ProviderErrorKind::NotAuthorised);
}

#[tokio::test]
async fn a_status_is_written_unless_the_object_has_changed() {
    let server = start_server().await;
    let before = server.put(&route("shop", "orders")).to_string();
    let objects = provider(&server).objects();
    let key = ObjectKey::new("shop", "orders");
    let patch = json!({
        "metadata": { "resourceVersion": before }, "status": { "parents": [] },
    });
    let result = objects.patch_status(&ROUTES, &key, &patch).await.unwrap();
    assert_eq!(result, StatusPatch::Applied);
    let stored = server.get("httproutes", "shop", "orders").unwrap();
    assert_eq!(stored["status"], json!({ "parents": [] }));
    let result = objects.patch_status(&ROUTES, &key, &patch).await.unwrap();
    assert_eq!(result, StatusPatch::Conflict);
    let gone = ObjectKey::new("shop", "gone");
    let result = objects.patch_status(&ROUTES, &gone, &patch).await.unwrap();
    assert_eq!(result, StatusPatch::NotFound);
}
