//! Registrations that are refused, and the advice in the errors.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use waypost::provider::Provider;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::{Error, Registrar, ServiceRegistration};
use waypost_fake_kubernetes::{ApiServer, manifest};

use super::super::start_server;
use super::{billing, failure, provider, slice_of, until_registered};

#[tokio::test]
async fn objects_not_managed_by_waypost_are_not_changed() {
    let server = start_server().await;
    let provider = provider(&server);
    let mut selecting = manifest::service("demo", "billing", &[("http", 80)]);
    selecting["spec"]["selector"] = json!({ "app": "billing" });
    let mut unlabelled = selecting.clone();
    unlabelled["spec"]
        .as_object_mut()
        .unwrap()
        .remove("selector");
    for (service, part) in [
        (selecting, r#"selects pods ({"app":"billing"})"#),
        (
            unlabelled,
            "label service billing app.kubernetes.io/managed-by=waypost",
        ),
    ] {
        server.delete("services", "demo", "billing");
        server.put(&service);
        let before = server.get("services", "demo", "billing");
        let registration = billing("10.0.0.1").id("b");
        let registrar = Registrar::start(provider.clone(), registration).unwrap();
        let error = failure(&registrar).await;
        assert!(error.contains(part), "{error}");
        assert_eq!(server.get("services", "demo", "billing"), before);
        assert_eq!(slice_of(&server, "b"), None);
        registrar.deregister().await.unwrap();
        assert_eq!(server.get("services", "demo", "billing"), before);
    }
    let endpoint = [manifest::endpoint("10.0.0.9")];
    let ports = [("http", 1)];
    server.put(&manifest::slice(
        "demo",
        "other",
        "waypost-c",
        &ports,
        endpoint,
    ));
    server.delete("services", "demo", "billing");
    let registrar = Registrar::start(provider, billing("10.0.0.1").id("c")).unwrap();
    let error = failure(&registrar).await;
    assert!(
        error.contains("waypost-c belongs to another instance"),
        "{error}"
    );
    registrar.deregister().await.unwrap();
    assert!(slice_of(&server, "c").is_some());
    assert_eq!(server.get("services", "demo", "billing"), None);
}

#[tokio::test]
async fn a_failed_registration_leaves_no_service_behind() {
    let server = start_server().await;
    let user = "outside";
    server.add_user(user);
    let rules = json!([
        { "apiGroups": [""], "resources": ["services"], "verbs": ["get", "create", "delete"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list"] },
    ]);
    server.grant(user, "demo", &rules);
    let kubeconfig = server.kubeconfig_of(user).unwrap();
    let built = KubernetesProvider::builder().kubeconfig(kubeconfig).build();
    let provider: Arc<dyn Provider> = Arc::new(built.unwrap());
    let registrar = Registrar::start(provider, billing("10.0.0.1").id("b")).unwrap();
    let error = failure(&registrar).await;
    assert!(error.contains("cannot create"), "{error}");
    registrar.abandon();
    let requests = server.requests();
    let count = |verb: &str| {
        let requests = requests.iter().filter(|it| it.resource == "services");
        requests.filter(|request| request.verb == verb).count()
    };
    assert_eq!((count("create"), count("delete")), (1, 1));
    assert_eq!(server.get("services", "demo", "billing"), None);
}

#[tokio::test]
async fn invalid_registrations_are_rejected_before_any_request() {
    let server = start_server().await;
    let provider = provider(&server);
    let reject = |registration: ServiceRegistration| {
        let error = Registrar::start(provider.clone(), registration).unwrap_err();
        assert!(matches!(error, Error::Rejected(_)), "{error:?}");
        error.to_string()
    };
    // The fake API server is on this machine, so the local address is a loopback address.
    let error = reject(ServiceRegistration::new("billing", 8080).unwrap());
    assert!(
        error.contains("127.0.0.1") && error.contains("--address"),
        "{error}"
    );
    let error = reject(ServiceRegistration::new("Billing_Service", 8080).unwrap());
    assert!(error.contains("a-z"), "{error}");
    let error = reject(billing("10.0.0.1").tag("a,b"));
    assert!(error.contains("\"a,b\""), "{error}");
    let error = reject(billing("10.0.0.1").meta("a key", "value"));
    assert!(error.contains("\"a key\""), "{error}");
    let error = reject(billing("10.0.0.1").meta("novel", "x".repeat(300_000)));
    assert!(error.contains("bytes of tags and metadata"), "{error}");
    let error = reject(billing("10.0.0.1").named_port("Metrics_1", 9090));
    assert!(error.contains("\"Metrics_1\""), "{error}");
    let error = reject(billing("my_host.example.com"));
    assert!(error.contains("my_host.example.com"), "{error}");
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn error_for_a_missing_or_terminating_namespace_says_so() {
    let server = ApiServer::builder()
        .namespace("demo")
        .namespace_deletion(Duration::from_secs(60))
        .start()
        .await
        .unwrap();
    let provider = provider(&server);
    let failed = async |name: &str| {
        let registration = ServiceRegistration::new(name, 80)
            .unwrap()
            .host("10.0.0.1".parse().unwrap())
            .id("b");
        let registrar = Registrar::start(provider.clone(), registration).unwrap();
        let error = failure(&registrar).await;
        registrar.abandon();
        error
    };
    let error = failed("billing.nowhere").await;
    assert!(
        error.contains("kubectl create namespace nowhere"),
        "{error}"
    );

    assert!(server.delete("namespaces", "", "demo"));
    let error = failed("billing").await;
    assert!(error.contains("because it is being terminated"), "{error}");
    assert!(!error.contains("not authorised"), "{error}");
}

#[tokio::test]
async fn applying_the_advised_role_is_enough_to_register() {
    let server = start_server().await;
    let user = "system:serviceaccount:demo:outside";
    server.add_user(user);
    let kubeconfig = server.kubeconfig_of(user).unwrap();
    let built = KubernetesProvider::builder().kubeconfig(kubeconfig).build();
    let provider: Arc<dyn Provider> = Arc::new(built.unwrap());
    let registrar = Registrar::start(provider, billing("10.0.0.1").id("b")).unwrap();
    let error = failure(&registrar).await;
    assert!(
        error.contains("cannot get resource \"services\""),
        "{error}"
    );
    assert!(
        error.contains("namespace demo: get services, create services"),
        "{error}"
    );

    let (_, yaml) = error.split_once("kubectl apply -f:\n").unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap();
    assert_eq!(
        documents[1]["subjects"],
        json!([{ "kind": "ServiceAccount", "name": "outside", "namespace": "demo" }])
    );
    for document in &documents {
        server.put(document);
    }
    until_registered(&registrar).await;
    registrar.deregister().await.unwrap();
    assert_eq!(server.get("services", "demo", "billing"), None);
}
