//! What can't be registered is told with what would help.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use waypost::provider::Provider;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::{Error, Registrar, ServiceRegistration};
use waypost_fake_kubernetes::{ApiServer, manifest};

use super::super::demo;
use super::{billing, failure, provider, registered, slice_of};

#[tokio::test]
async fn services_of_others_are_not_touched() {
    let server = demo().await;
    let provider = provider(&server);
    let mut selecting = manifest::service("demo", "billing", &[("http", 80)]);
    selecting["spec"]["selector"] = json!({ "app": "billing" });
    let mut foreign = selecting.clone();
    foreign["spec"].as_object_mut().unwrap().remove("selector");
    for (service, words) in [
        (selecting, r#"selects pods ({"app":"billing"})"#),
        (
            foreign,
            "label service billing app.kubernetes.io/managed-by=waypost",
        ),
    ] {
        server.delete("services", "demo", "billing");
        server.put(&service);
        let before = server.get("services", "demo", "billing");
        let it = billing("10.0.0.1").id("b");
        let registrar = Registrar::start(provider.clone(), it).unwrap();
        let said = failure(&registrar).await;
        assert!(said.contains(words), "{said}");
        assert_eq!(server.get("services", "demo", "billing"), before);
        assert_eq!(slice_of(&server, "b"), None);
        registrar.deregister().await.unwrap();
        assert_eq!(server.get("services", "demo", "billing"), before);
    }
    let not_ours = [manifest::endpoint("10.0.0.9")];
    server.put(&manifest::slice(
        "demo",
        "other",
        "waypost-c",
        &[("http", 1)],
        not_ours,
    ));
    server.delete("services", "demo", "billing");
    let registrar = Registrar::start(provider, billing("10.0.0.1").id("c")).unwrap();
    let said = failure(&registrar).await;
    assert!(
        said.contains("waypost-c belongs to another instance"),
        "{said}"
    );
    registrar.deregister().await.unwrap();
    assert!(slice_of(&server, "c").is_some());
}

#[tokio::test]
async fn what_the_api_server_would_refuse_is_told_at_once() {
    let server = demo().await;
    let provider = provider(&server);
    let start = |it: ServiceRegistration| {
        let refused = Registrar::start(provider.clone(), it).unwrap_err();
        assert!(matches!(refused, Error::Rejected(_)), "{refused:?}");
        refused.to_string()
    };
    // The fake API server is on this machine, so it reaches us at this address.
    let said = start(ServiceRegistration::new("billing", 8080).unwrap());
    assert!(
        said.contains("127.0.0.1") && said.contains("--address"),
        "{said}"
    );
    let said = start(ServiceRegistration::new("Billing_Service", 8080).unwrap());
    assert!(said.contains("a-z"), "{said}");
    let said = start(billing("10.0.0.1").tag("a,b"));
    assert!(said.contains("\"a,b\""), "{said}");
    let said = start(billing("10.0.0.1").meta("a key", "value"));
    assert!(said.contains("\"a key\""), "{said}");
    let said = start(billing("10.0.0.1").meta("novel", "x".repeat(300_000)));
    assert!(said.contains("bytes of tags and metadata"), "{said}");
    let said = start(billing("10.0.0.1").named_port("Metrics_1", 9090));
    assert!(said.contains("\"Metrics_1\""), "{said}");
    let said = start(billing("my_host.example.com"));
    assert!(said.contains("my_host.example.com"), "{said}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn a_namespace_that_is_missing_or_ending_is_told_as_that() {
    let server = ApiServer::builder()
        .namespace("demo")
        .namespace_deletion(Duration::from_secs(60))
        .start()
        .await
        .unwrap();
    let provider = provider(&server);
    let failed = async |name: &str| {
        let it = ServiceRegistration::new(name, 80).unwrap();
        let it = it.host("10.0.0.1".parse().unwrap()).id("b");
        let registrar = Registrar::start(provider.clone(), it).unwrap();
        let said = failure(&registrar).await;
        registrar.abandon();
        said
    };
    let said = failed("billing.nowhere").await;
    assert!(said.contains("kubectl create namespace nowhere"), "{said}");

    assert!(server.delete("namespaces", "", "demo"));
    let said = failed("billing").await;
    assert!(said.contains("because it is being terminated"), "{said}");
    assert!(!said.contains("not authorised"), "{said}");
}

#[tokio::test]
async fn missing_rights_are_told_as_what_to_apply_and_then_it_registers_by_itself() {
    let server = demo().await;
    let who = "system:serviceaccount:demo:outside";
    server.add_user(who);
    let kubeconfig = server.kubeconfig_of(who).unwrap();
    let built = KubernetesProvider::builder().kubeconfig(kubeconfig).build();
    let provider: Arc<dyn Provider> = Arc::new(built.unwrap());
    let registrar = Registrar::start(provider, billing("10.0.0.1").id("b")).unwrap();
    let said = failure(&registrar).await;
    assert!(said.contains("cannot get resource \"services\""), "{said}");
    assert!(
        said.contains("namespace demo: get services, create services"),
        "{said}"
    );

    let (_, yaml) = said.split_once("kubectl apply -f:\n").unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    assert_eq!(
        documents[1]["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "outside", "namespace": "demo" }])
    );
    for document in &documents {
        server.put(document);
    }
    registered(&registrar).await;
    registrar.deregister().await.unwrap();
    assert_eq!(server.get("services", "demo", "billing"), None);
}
