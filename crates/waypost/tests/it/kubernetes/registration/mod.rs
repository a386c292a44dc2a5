//! Registration of instances that run outside the cluster, through a registrar.

mod conformance;
mod errors;
mod expiry;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use waypost::integration::axum::serve;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::provider::{HeartbeatResponse, InstanceReport, Provider, ServiceAnswer};
use waypost::{
    Environment, Error, Health, HealthChecks, Instance, Registrar, RegistrationState,
    ServiceRegistration,
};
use waypost_fake_kubernetes::ApiServer;
use waypost_testkit::Logs;

use super::{TIMEOUT, start_server};

fn provider(server: &ApiServer) -> Arc<KubernetesProvider> {
    Arc::new(super::provider(server))
}

fn billing(address: &str) -> ServiceRegistration {
    ServiceRegistration::new("billing", 8080)
        .unwrap()
        .host(address.parse().unwrap())
}

/// Registers an instance and waits until it is.
async fn register(
    provider: &Arc<KubernetesProvider>,
    registration: ServiceRegistration,
) -> Registrar {
    let registrar = Registrar::start(Arc::clone(provider) as _, registration).unwrap();
    until_registered(&registrar).await;
    registrar
}

async fn until_registered(registrar: &Registrar) {
    if timeout(TIMEOUT, registrar.registered()).await.is_err() {
        panic!("not registered: {:?}", registrar.state());
    }
}

/// Waits until an attempt to register has failed, and returns the error.
async fn failure(registrar: &Registrar) -> String {
    let failing = async {
        loop {
            if let RegistrationState::Pending(Some(error)) = registrar.state() {
                return Error::from(error).to_string();
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(TIMEOUT, failing).await.expect("no attempt fails")
}

/// The first answer about a service.
async fn instances(provider: &KubernetesProvider, name: &str) -> Vec<Arc<Instance>> {
    let mut watch = provider.watch(&name.parse().unwrap());
    match timeout(TIMEOUT, watch.next()).await {
        Ok(Some(Ok(ServiceAnswer::Instances(instances)))) => instances,
        other => panic!("{other:?}"),
    }
}

/// The slice of the instance `id`, in the namespace `demo`.
fn slice_of(server: &ApiServer, id: &str) -> Option<Value> {
    server.get("endpointslices", "demo", &format!("waypost-{id}"))
}

/// Whether the endpoint of the instance `id` is ready.
fn is_ready(server: &ApiServer, id: &str) -> bool {
    let slice = slice_of(server, id).unwrap();
    slice["endpoints"][0]["conditions"]["ready"]
        .as_bool()
        .unwrap()
}

#[tokio::test]
async fn registered_instance_is_a_slice_of_a_service_without_selector() {
    let server = start_server().await;
    let provider = provider(&server);
    let full = billing("10.9.8.7")
        .version("1.2.0")
        .zone("eu-1a")
        .tags(["api", "fast"])
        .meta("region", "us-east")
        .named_port("metrics", 9090);
    let first = register(&provider, full.id("billing-1")).await;
    let second = register(&provider, billing("2001:db8::7").id("billing-2")).await;

    let service = server.get("services", "demo", "billing").unwrap();
    assert_eq!(service["spec"].get("selector"), None);
    assert_eq!(
        service["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "waypost"
    );
    assert_eq!(service["spec"]["ports"][0]["name"], "http");
    let slice = slice_of(&server, "billing-1").unwrap();
    let metadata = &slice["metadata"];
    assert_eq!(
        metadata["labels"],
        json!({
            "kubernetes.io/service-name": "billing",
            "endpointslice.kubernetes.io/managed-by": "waypost",
        })
    );
    assert_eq!(
        metadata["ownerReferences"][0]["uid"],
        service["metadata"]["uid"]
    );
    assert_eq!(slice["addressType"], "IPv4");
    let endpoint = &slice["endpoints"][0];
    assert_eq!(endpoint["addresses"], json!(["10.9.8.7"]));
    assert_eq!(endpoint["zone"], "eu-1a");
    assert_eq!(endpoint["conditions"]["ready"], true);
    let ports: Vec<_> = slice["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["port"])
        .collect();
    assert_eq!(ports, [8080, 9090]);
    assert_eq!(
        slice_of(&server, "billing-2").unwrap()["addressType"],
        "IPv6"
    );

    first.deregister().await.unwrap();
    assert_eq!(slice_of(&server, "billing-1"), None);
    assert!(
        server.get("services", "demo", "billing").is_some(),
        "the other instance needs it"
    );
    second.deregister().await.unwrap();
    assert_eq!(slice_of(&server, "billing-2"), None);
    assert_eq!(server.get("services", "demo", "billing"), None);
}

#[tokio::test]
async fn slice_is_ready_as_reported_except_in_maintenance() {
    let server = start_server().await;
    let provider = provider(&server);
    let registrar = register(&provider, billing("10.0.0.1").id("b")).await;
    let registration = registrar.registration().clone();
    let registry = provider.registry().unwrap();
    let report = async |health| {
        let report = InstanceReport::new(health, "");
        registry.heartbeat(&registration, report).await.unwrap()
    };
    for (health, expected) in [
        (Health::Critical, false),
        (Health::Warning, true),
        (Health::Critical, false),
        (Health::Passing, true),
    ] {
        assert_eq!(report(health).await, HeartbeatResponse::Known);
        assert_eq!(is_ready(&server, "b"), expected, "{health}");
    }
    registry
        .set_maintenance(&registration, Some("disk"))
        .await
        .unwrap();
    assert!(!is_ready(&server, "b"));
    assert_eq!(report(Health::Critical).await, HeartbeatResponse::Known);
    assert_eq!(report(Health::Passing).await, HeartbeatResponse::Known);
    assert!(!is_ready(&server, "b"), "still in maintenance");
    registry.set_maintenance(&registration, None).await.unwrap();
    assert!(is_ready(&server, "b"));

    server.delete("endpointslices", "demo", "waypost-b");
    // The heartbeat says so.
    let missing = registry.set_maintenance(&registration, Some("disk"));
    missing.await.unwrap();
    assert_eq!(report(Health::Passing).await, HeartbeatResponse::Forgotten);
}

#[tokio::test]
async fn a_service_that_somebody_has_deleted_does_not_disturb_the_deregistration() {
    let (logs, _guard) = Logs::take();
    let server = start_server().await;
    let provider = provider(&server);
    let registrar = register(&provider, billing("10.0.0.1").id("b")).await;
    server.delete("services", "demo", "billing");
    registrar.deregister().await.unwrap();
    assert!(slice_of(&server, "b").is_none());
    let complaints = logs.lines(&["cannot delete the Service"]);
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[tokio::test]
async fn deleted_slice_is_registered_again() {
    let server = start_server().await;
    let provider = provider(&server);
    let registrar = register(&provider, billing("10.0.0.1").id("b")).await;
    server.delete("endpointslices", "demo", "waypost-b");
    let back = async {
        while slice_of(&server, "b").is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, back)
        .await
        .expect("not registered again in time");
    registrar.deregister().await.unwrap();
}

#[tokio::test]
async fn same_id_with_another_address_type_replaces_the_slice() {
    let server = start_server().await;
    let provider = provider(&server);
    let registrar = register(&provider, billing("10.0.0.1").id("b")).await;
    let moved = register(&provider, billing("db.example.com").id("b")).await;
    assert_eq!(slice_of(&server, "b").unwrap()["addressType"], "FQDN");
    registrar.abandon();
    moved.deregister().await.unwrap();
    assert_eq!(slice_of(&server, "b"), None);
}

/// A scheme may not be a valid port name, and a Service must not have two ports with one number.
#[tokio::test]
async fn scheme_and_port_names_are_found_as_registered() {
    let server = start_server().await;
    let provider = provider(&server);
    let registration = billing("10.0.0.1")
        .id("b")
        .scheme("grpc+tls")
        .named_port("health", 8080)
        .named_port("http", 9090);
    let registrar = register(&provider, registration).await;
    let service = server.get("services", "demo", "billing").unwrap();
    let ports = service["spec"]["ports"].as_array().unwrap();
    assert_eq!(ports.len(), 2, "{service}");
    let found = instances(&provider, "billing").await;
    assert_eq!(found[0].url(), "grpc+tls://10.0.0.1:8080");
    assert_eq!(found[0].named_port("health"), Some(8080));
    assert_eq!(found[0].named_port("http"), Some(9090));
    registrar.deregister().await.unwrap();
}

#[tokio::test]
async fn registration_succeeds_once_the_server_is_up() {
    let server = start_server().await;
    server.kill().await;
    let registrar = Registrar::start(provider(&server), billing("10.0.0.1").id("b")).unwrap();
    failure(&registrar).await;
    server.restart().await.unwrap();
    until_registered(&registrar).await;
    assert!(is_ready(&server, "b"));
    registrar.deregister().await.unwrap();
}

#[tokio::test]
async fn registration_in_a_pod_is_refused_with_advice_and_the_service_runs() {
    let server = start_server().await;
    let directory = tempfile::tempdir().unwrap();
    let token = server.add_user("system:serviceaccount:demo:billing");
    for (file, content) in [
        ("token", &*token),
        ("ca.crt", &server.ca_pem()),
        ("namespace", "demo"),
    ] {
        fs::write(directory.path().join(file), content).unwrap();
    }
    let environment: Environment = [
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
        (
            "KUBERNETES_SERVICE_PORT",
            server.address().port().to_string(),
        ),
        (
            "WAYPOST_SERVICE_ACCOUNT_DIR",
            directory.path().display().to_string(),
        ),
    ]
    .into_iter()
    .collect();
    let provider = Arc::new(KubernetesProvider::from_environment(&environment).unwrap());
    let registration = ServiceRegistration::new("billing", 0)
        .unwrap()
        .version("1.2.0");

    let error = Registrar::start(provider.clone(), registration.clone().port(8080));
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    for part in [
        "in a pod, Kubernetes registers",
        r#""port":8080"#,
        r#""app.kubernetes.io/version":"1.2.0""#,
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }

    // Advice at each start would be wrong where the manifests are right.
    let (logs, _guard) = Logs::take();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = serve(listener, axum::Router::new())
        .health(HealthChecks::new("billing"))
        .register(registration)
        .provider(provider)
        .shutdown_when(async {
            let _ = stopped.await;
        });
    let serving = tokio::spawn(serving.run());
    let url = format!("http://{address}/readyz");
    let client = waypost_testkit::http_client();
    assert!(client.get(url).send().await.unwrap().status().is_success());
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
    assert!(server.requests().is_empty(), "{:?}", server.requests());
    let not_registering = logs.lines(&["not registering: ", "Kubernetes registers the instance"]);
    assert_eq!(not_registering.len(), 1, "{}", logs.text());
    assert!(
        !logs.text().contains("The manifests need"),
        "{}",
        logs.text()
    );
}
