//! What runs outside of a cluster is found in it, and what is not ours stays as it is.

mod conformance;
mod left_overs;
mod refusals;

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use waypost::integration::axum::serve;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::provider::{Answer, Heartbeat, Provider, Report};
use waypost::{
    Environment, Error, Health, HealthChecks, Instance, Registrar, RegistrationState,
    ServiceRegistration,
};
use waypost_fake_kubernetes::ApiServer;

use super::demo;

const PATIENCE: Duration = Duration::from_secs(60);

fn provider(server: &ApiServer) -> Arc<KubernetesProvider> {
    Arc::new(super::provider(server))
}

fn billing(address: &str) -> ServiceRegistration {
    ServiceRegistration::new("billing", 8080)
        .unwrap()
        .host(address.parse().unwrap())
}

async fn register(provider: &Arc<KubernetesProvider>, it: ServiceRegistration) -> Registrar {
    let registrar = Registrar::start(Arc::clone(provider) as _, it).unwrap();
    registered(&registrar).await;
    registrar
}

async fn registered(registrar: &Registrar) {
    if timeout(PATIENCE, registrar.registered()).await.is_err() {
        panic!("not registered: {:?}", registrar.state());
    }
}

/// Waits until an attempt to register has failed, and gives the error.
async fn failure(registrar: &Registrar) -> String {
    let failing = async {
        loop {
            if let RegistrationState::Pending(Some(error)) = registrar.state() {
                return Error::from(error).to_string();
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, failing).await.expect("no attempt fails")
}

/// What is found at first.
async fn instances(provider: &KubernetesProvider, name: &str) -> Vec<Arc<Instance>> {
    match super::next(&mut provider.watch(&name.parse().unwrap())).await {
        Ok(Answer::Instances(instances)) => instances,
        other => panic!("{other:?}"),
    }
}

fn slice_of(server: &ApiServer, id: &str) -> Option<Value> {
    server.get("endpointslices", "demo", &format!("waypost-{id}"))
}

fn ready(server: &ApiServer, id: &str) -> bool {
    let slice = slice_of(server, id).unwrap();
    slice["endpoints"][0]["conditions"]["ready"]
        .as_bool()
        .unwrap()
}

#[tokio::test]
async fn an_instance_is_a_slice_of_a_service_without_selector_until_it_leaves() {
    let server = demo().await;
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
        "one is left"
    );
    second.deregister().await.unwrap();
    assert_eq!(slice_of(&server, "billing-2"), None);
    assert_eq!(server.get("services", "demo", "billing"), None);
}

#[tokio::test]
async fn readiness_is_what_the_instance_reports() {
    let server = demo().await;
    let provider = provider(&server);
    let registrar = register(&provider, billing("10.0.0.1").id("b")).await;
    let registration = registrar.registration().clone();
    let registry = provider.registry().unwrap();
    let report = async |health| {
        let report = Report::new(health, "");
        registry.heartbeat(&registration, report).await.unwrap()
    };
    for (health, is_ready) in [
        (Health::Critical, false),
        (Health::Warning, true),
        (Health::Critical, false),
        (Health::Passing, true),
    ] {
        assert_eq!(report(health).await, Heartbeat::Known);
        assert_eq!(ready(&server, "b"), is_ready, "{health}");
    }
    registry
        .set_maintenance(&registration, Some("disk"))
        .await
        .unwrap();
    assert!(!ready(&server, "b"));
    assert_eq!(report(Health::Critical).await, Heartbeat::Known);
    assert_eq!(report(Health::Passing).await, Heartbeat::Known);
    assert!(!ready(&server, "b"), "still in maintenance");
    registry.set_maintenance(&registration, None).await.unwrap();
    assert!(ready(&server, "b"));

    server.delete("endpointslices", "demo", "waypost-b");
    assert_eq!(report(Health::Passing).await, Heartbeat::Forgotten);
}

#[tokio::test]
async fn it_comes_back_after_it_was_deleted_or_another_name_was_taken() {
    let server = demo().await;
    let provider = provider(&server);
    let registrar = register(&provider, billing("10.0.0.1").id("b")).await;
    server.delete("endpointslices", "demo", "waypost-b");
    let back = async {
        while slice_of(&server, "b").is_none() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, back)
        .await
        .expect("it is registered again");

    // The same id at another kind of address takes its place.
    let moved = register(&provider, billing("db.example.com").id("b")).await;
    assert_eq!(slice_of(&server, "b").unwrap()["addressType"], "FQDN");
    registrar.abandon();
    moved.deregister().await.unwrap();
    assert_eq!(slice_of(&server, "b"), None);
}

/// Schemes have signs that names of ports may not have, and a Service has each number once.
#[tokio::test]
async fn whatever_speaks_on_a_port_of_two_names_is_found_as_it_said() {
    let server = demo().await;
    let provider = provider(&server);
    let it = billing("10.0.0.1").id("b").scheme("grpc+tls");
    let it = it.named_port("health", 8080).named_port("http", 9090);
    let registrar = register(&provider, it).await;
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
async fn a_server_that_is_down_at_the_start_has_it_when_it_is_back() {
    let server = demo().await;
    server.kill().await;
    let registrar = Registrar::start(provider(&server), billing("10.0.0.1").id("b")).unwrap();
    failure(&registrar).await;
    server.restart().await.unwrap();
    registered(&registrar).await;
    assert!(ready(&server, "b"));
    registrar.deregister().await.unwrap();
}

#[tokio::test]
async fn in_a_pod_the_service_runs_and_is_told_what_its_manifest_needs() {
    let server = demo().await;
    let folder = tempfile::tempdir().unwrap();
    let token = server.add_user("system:serviceaccount:demo:billing");
    for (file, content) in [
        ("token", &*token),
        ("ca.crt", &server.ca_pem()),
        ("namespace", "demo"),
    ] {
        fs::write(folder.path().join(file), content).unwrap();
    }
    let environment: Environment = [
        ("KUBERNETES_SERVICE_HOST", "127.0.0.1".to_owned()),
        (
            "KUBERNETES_SERVICE_PORT",
            server.address().port().to_string(),
        ),
        (
            "WAYPOST_SERVICE_ACCOUNT_DIR",
            folder.path().display().to_string(),
        ),
    ]
    .into_iter()
    .collect();
    let provider = Arc::new(KubernetesProvider::from_environment(&environment).unwrap());
    let it = ServiceRegistration::new("billing", 0)
        .unwrap()
        .version("1.2.0");

    let error = Registrar::start(provider.clone(), it.clone().port(8080)).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    for words in [
        "in a pod, Kubernetes registers",
        r#""port":8080"#,
        r#""app.kubernetes.io/version":"1.2.0""#,
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = serve(listener, axum::Router::new())
        .health(HealthChecks::new("billing"))
        .register(it)
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
}
