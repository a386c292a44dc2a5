//! Authentication and authorization.

use reqwest::Method;
use serde_json::{Value, json};
use waypost_fake_kubernetes::manifest;

use crate::client::{Client, Fixture, SLICES, event};

#[tokio::test]
async fn missing_and_wrong_credentials_are_refused() {
    let it = Fixture::new().await;
    let (status, refused) = Client::new(&it.server, None).get(SLICES).await;
    assert_eq!(status.as_u16(), 403);
    assert_eq!(
        refused["message"],
        "endpointslices.discovery.k8s.io is forbidden: User \"system:anonymous\" cannot list \
         resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"demo\""
    );
    let token = it.server.add_token("admin");
    let client = Client::new(&it.server, Some(token.clone()));
    assert_eq!(client.get(SLICES).await.0.as_u16(), 200);
    it.server.revoke_token(&token);
    let (status, refused) = client.get(SLICES).await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (401, &json!("Unauthorized"))
    );
}

#[tokio::test]
async fn roles_decide_and_an_open_watch_continues_without_them() {
    let it = Fixture::new().await;
    let token = it.server.add_user("system:serviceaccount:demo:web");
    let user = Client::new(&it.server, Some(token));
    assert_eq!(user.get(SLICES).await.0.as_u16(), 403);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "reader", "namespace": "demo" },
        "rules": manifest::read_rules(&["list", "watch"]),
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "reader", "namespace": "demo" },
        "subjects": [{ "kind": "ServiceAccount", "name": "web", "namespace": "demo" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
    });
    it.server.put(&role);
    it.server.put(&binding);
    assert_eq!(user.get(SLICES).await.0.as_u16(), 200);
    let elsewhere = SLICES.replace("demo", "other");
    assert_eq!(user.get(&elsewhere).await.0.as_u16(), 403);

    let revision = it.server.revision();
    let path = format!("{SLICES}?watch=true&resourceVersion={revision}");
    let mut watch = user.watch(&path).await;
    it.server.delete("rolebindings", "demo", "reader");
    assert_eq!(user.get(SLICES).await.0.as_u16(), 403);
    it.put_slice("web-1", "10.0.0.1");
    assert_eq!(watch.named().await, event("ADDED", "web-1"));
}

#[tokio::test]
async fn users_can_query_their_permissions() {
    let it = Fixture::new().await;
    let token = it.server.add_user("reader");
    let named = json!([{
        "apiGroups": [""], "resources": ["services"], "resourceNames": ["web"], "verbs": ["list"],
    }]);
    it.server.grant("reader", "demo", &named);
    let user = Client::new(&it.server, Some(token));
    let ask = async |verb: &str, name: &str| -> Value {
        let attributes = json!({
            "namespace": "demo", "verb": verb, "group": "", "resource": "services", "name": name,
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes },
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let (status, body) = user.send(Method::POST, path, &review).await;
        assert_eq!(status.as_u16(), 201);
        body["status"]["allowed"].clone()
    };
    assert_eq!(ask("list", "web").await, true);
    assert_eq!(ask("list", "").await, false);
    assert_eq!(ask("watch", "web").await, false);
    // A list of one name needs the permission for that name only.
    let services = "/api/v1/namespaces/demo/services";
    assert_eq!(user.get(services).await.0.as_u16(), 403);
    let one = format!("{services}?fieldSelector=metadata.name%3Dweb");
    assert_eq!(user.get(&one).await.0.as_u16(), 200);
}

#[tokio::test]
async fn a_cluster_role_gives_rights_in_the_namespace_of_its_binding_or_in_all() {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let it = Fixture::new().await;
    let token = it.server.add_user("reader");
    let user = Client::new(&it.server, Some(token));
    let everywhere = "/apis/discovery.k8s.io/v1/endpointslices";
    let elsewhere = SLICES.replace("demo", "other");
    let allowed = async || {
        let mut codes = Vec::new();
        for path in [SLICES, &elsewhere, everywhere] {
            codes.push(user.get(path).await.0.as_u16());
        }
        codes
    };
    it.server.put(&json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": { "name": "reader" },
        "rules": manifest::read_rules(&["list", "watch"]),
    }));
    assert_eq!(allowed().await, [403, 403, 403]);
    let (_, refused) = user.get(everywhere).await;
    assert_eq!(
        refused["message"],
        "endpointslices.discovery.k8s.io is forbidden: User \"reader\" cannot list resource \
         \"endpointslices\" in API group \"discovery.k8s.io\" at the cluster scope"
    );
    let binding = |kind: &str, meta: Value| {
        json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": kind, "metadata": meta,
            "subjects": [{ "kind": "User", "name": "reader", "apiGroup": RBAC }],
            "roleRef": { "apiGroup": RBAC, "kind": "ClusterRole", "name": "reader" },
        })
    };
    let meta = json!({ "name": "reader", "namespace": "demo" });
    it.server.put(&binding("RoleBinding", meta));
    assert_eq!(allowed().await, [200, 403, 403]);
    let meta = json!({ "name": "reader" });
    it.server.put(&binding("ClusterRoleBinding", meta));
    assert_eq!(allowed().await, [200, 200, 200]);
    it.server.delete("clusterrolebindings", "", "reader");
    it.server
        .grant("reader", "", &manifest::read_rules(&["list"]));
    it.server.delete("rolebindings", "demo", "reader");
    assert_eq!(allowed().await, [200, 200, 200]);
    it.server.revoke("reader", "");
    assert_eq!(allowed().await, [403, 403, 403]);
}
