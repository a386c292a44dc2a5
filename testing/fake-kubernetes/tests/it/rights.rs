//! Who is let in, and what they may do.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use waypost_fake_kubernetes::manifest;

use crate::client::{Client, Fixture, SLICES, event};

#[tokio::test]
async fn each_lack_of_credentials_has_its_answer() {
    let it = Fixture::new().await;
    let (status, refused) = Client::new(&it.server, None).get(SLICES).await;
    assert_eq!(status.as_u16(), 403);
    assert_eq!(
        refused["message"],
        "endpointslices.discovery.k8s.io is forbidden: User \"system:anonymous\" cannot list \
         resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"demo\""
    );
    let wrong = Client::new(&it.server, Some("wrong".to_owned()));
    let (status, refused) = wrong.get(SLICES).await;
    assert_eq!(
        (status.as_u16(), &refused["reason"]),
        (401, &json!("Unauthorized"))
    );
    let short = it.server.add_token("admin", Some(Duration::from_secs(2)));
    let short = Client::new(&it.server, Some(short));
    assert_eq!(short.get(SLICES).await.0.as_u16(), 200);
    while short.get(SLICES).await.0.as_u16() != 401 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn rights_are_those_of_roles_and_change_while_a_watch_is_open() {
    let it = Fixture::new().await;
    let token = it
        .server
        .add_user("system:serviceaccount:demo:web")
        .unwrap();
    let user = Client::new(&it.server, Some(token));
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": { "name": "reader", "namespace": "demo" },
        "rules": manifest::reading(&["list", "watch"]),
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "reader", "namespace": "demo" },
        "subjects": [{ "kind": "ServiceAccount", "name": "web", "namespace": "demo" }],
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
    });
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/demo";
    assert_eq!(user.get(SLICES).await.0.as_u16(), 403);
    for (path, object) in [("roles", &role), ("rolebindings", &binding)] {
        let (status, _) = it
            .client
            .send(Method::POST, &format!("{roles}/{path}"), object)
            .await;
        assert_eq!(status.as_u16(), 201);
    }
    assert_eq!(user.get(SLICES).await.0.as_u16(), 200);
    let everywhere = "/apis/discovery.k8s.io/v1/endpointslices";
    let (status, refused) = user.get(everywhere).await;
    assert_eq!(status.as_u16(), 403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .ends_with("at the cluster scope")
    );

    let path = format!("{SLICES}?watch=1&resourceVersion={}", it.server.revision());
    let mut watch = user.watch(&path).await;
    it.server.delete("rolebindings", "demo", "reader");
    assert_eq!(user.get(SLICES).await.0.as_u16(), 403);
    it.put_slice("web-1", "10.0.0.1");
    assert_eq!(watch.named().await, event("ADDED", "web-1"));
}

#[tokio::test]
async fn one_may_ask_what_one_may_do() {
    let it = Fixture::new().await;
    let token = it.server.add_user("reader").unwrap();
    let named = json!([{
        "apiGroups": [""], "resources": ["services"], "resourceNames": ["web"], "verbs": ["list"],
    }]);
    it.server.grant("reader", Some("demo"), &named);
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
    // A list of one name is about that name.
    let services = "/api/v1/namespaces/demo/services";
    assert_eq!(user.get(services).await.0.as_u16(), 403);
    let one = format!("{services}?fieldSelector=metadata.name%3Dweb");
    assert_eq!(user.get(&one).await.0.as_u16(), 200);
}
