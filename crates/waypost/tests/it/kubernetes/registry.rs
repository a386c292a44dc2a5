//! What runs outside of a cluster is found in it, and what is not ours stays as it is.

use std::{
    collections::BTreeMap,
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use waypost::{
    Check, Environment, Error, Health, HealthChecks, Instance, InstanceId, Provider, Registrar,
    RegistrationState, ServiceRegistration,
    conformance::{self, Abilities, Harness},
    integration::axum::serve,
    provider::{Answer, Heartbeat, Report, kubernetes::KubernetesProvider},
};
use waypost_kube_standin::{ApiServer, manifest};

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
    assert!(said.contains("waypost-c is not ours"), "{said}");
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
    // The stand-in is on this machine, so this is how we are reached from there.
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

/// Lets the slice of an instance look as if it had been renewed then and never since.
fn leave(server: &ApiServer, id: &str, renewed: &str) {
    let mut left = slice_of(server, id).unwrap();
    let at = &mut left["metadata"]["annotations"]["waypost.dev/renewed-at"];
    assert!(at.is_string());
    *at = renewed.into();
    left["apiVersion"] = "discovery.k8s.io/v1".into();
    left["kind"] = "EndpointSlice".into();
    server.put(&left);
}

fn minutes_ago(minutes: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(60 * minutes);
    humantime::format_rfc3339_seconds(then).to_string()
}

#[tokio::test]
async fn what_a_killed_process_left_is_not_used() {
    let server = demo().await;
    let provider = provider(&server);
    let checked = |id: &str, ip: &str| billing(ip).id(id).check(Check::http("/health"));
    let alive = register(&provider, checked("alive", "10.0.0.1")).await;
    register(&provider, checked("dead", "10.0.0.2"))
        .await
        .abandon();
    leave(&server, "dead", &minutes_ago(11));
    let found = instances(&provider, "billing").await;
    let found: Vec<_> = found
        .iter()
        .map(|it| (it.id().as_str(), it.health()))
        .collect();
    assert_eq!(
        found,
        [("alive", Health::Passing), ("dead", Health::Critical)]
    );
    alive.deregister().await.unwrap();
}

/// Nobody can renew anything while the API server is away, so that after a long outage all look dead
/// to who comes first; a minute later only those do that are.
#[tokio::test]
async fn what_has_just_expired_is_cleared_with_the_next_renewal_of_another() {
    let server = demo().await;
    let provider = provider(&server);
    let checked = |id: &str, ip: &str| billing(ip).id(id).check(Check::http("/health"));
    register(&provider, checked("dead", "10.0.0.2"))
        .await
        .abandon();
    leave(&server, "dead", &minutes_ago(20));
    let alive = register(&provider, checked("alive", "10.0.0.1")).await;
    assert!(slice_of(&server, "dead").is_some());
    let registry = provider.registry().unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let beat = registry.heartbeat(alive.registration(), Report::alive());
    assert_eq!(beat.await.unwrap(), Heartbeat::Known);
    assert_eq!(slice_of(&server, "dead"), None);
    alive.deregister().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_process_left_is_cleared_by_the_next_one() {
    let server = demo().await;
    let provider = provider(&server);
    let checked = |id: &str| billing("10.0.0.1").id(id).check(Check::http("/health"));
    let alive = register(&provider, checked("alive")).await;
    register(&provider, checked("dead")).await.abandon();
    register(&provider, billing("10.0.0.3").id("by-hand"))
        .await
        .abandon();
    leave(&server, "dead", "2020-01-01T00:00:00Z");

    let next = register(&provider, checked("next")).await;
    assert_eq!(slice_of(&server, "dead"), None);
    assert!(slice_of(&server, "alive").is_some());
    // What has no check is there until somebody takes it back, as with other registries.
    assert!(slice_of(&server, "by-hand").is_some());
    for registrar in [alive, next] {
        registrar.deregister().await.unwrap();
    }
    let by_hand = "by-hand".into();
    provider
        .registry()
        .unwrap()
        .deregister(&by_hand)
        .await
        .unwrap();
    assert_eq!(server.get("services", "demo", "billing"), None);
    // An id that isn't there is no error.
    provider
        .registry()
        .unwrap()
        .deregister(&by_hand)
        .await
        .unwrap();
}

#[tokio::test]
async fn missing_rights_are_told_as_what_to_apply_and_then_it_registers_by_itself() {
    let server = demo().await;
    let who = "system:serviceaccount:demo:outside";
    server.add_user(who).unwrap();
    let kubeconfig = server.kubeconfig_of(who).unwrap();
    let built = KubernetesProvider::builder().kubeconfig(kubeconfig).build();
    let provider: Arc<dyn Provider> = Arc::new(built.unwrap());
    let registrar = Registrar::start(provider, billing("10.0.0.1").id("b")).unwrap();
    let said = failure(&registrar).await;
    assert!(said.contains("cannot get resource \"services\""), "{said}");
    assert!(
        said.contains("we lack: get services, create services"),
        "{said}"
    );

    let (_, yaml) = said.split_once("gives it:\n").unwrap();
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
    let token = server
        .add_user("system:serviceaccount:demo:billing")
        .unwrap();
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

/// A cluster in which everything there is has registered itself.
struct Registered {
    server: ApiServer,
    provider: Arc<KubernetesProvider>,
    published: tokio::sync::Mutex<BTreeMap<InstanceId, (Instance, Registrar)>>,
}

impl Harness for Registered {
    fn abilities(&self) -> Abilities {
        let mut abilities = Abilities::all();
        abilities.most = 30;
        abilities
    }

    fn provider(&self) -> Arc<dyn Provider> {
        provider(&self.server)
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        async move {
            let mut published = self.published.lock().await;
            let mut before = std::mem::take(&mut *published);
            for instance in content {
                let id = instance.id().clone();
                let registrar = match before.remove(&id) {
                    Some((same, registrar)) if same == instance => registrar,
                    earlier => {
                        let now = register(&self.provider, registration(&instance)).await;
                        if let Some((_, earlier)) = earlier {
                            earlier.abandon();
                        }
                        now
                    }
                };
                published.insert(id, (instance, registrar));
            }
            for (_, registrar) in before.into_values() {
                registrar.deregister().await.unwrap();
            }
        }
        .boxed()
    }

    fn break_down(&self) -> BoxFuture<'_, ()> {
        self.server.kill().boxed()
    }

    fn heal(&self) -> BoxFuture<'_, ()> {
        async { self.server.restart().await.unwrap() }.boxed()
    }
}

fn registration(instance: &Instance) -> ServiceRegistration {
    let mut registration = ServiceRegistration::new(instance.service(), instance.port())
        .unwrap()
        .host(instance.host().clone())
        .id(instance.id().clone())
        .tags(instance.tags())
        .weight(instance.weight());
    if let Some(version) = instance.version() {
        registration = registration.version(version);
    }
    for (key, value) in instance.metadata() {
        registration = registration.meta(key, value);
    }
    registration
}

#[tokio::test]
async fn what_registers_is_found_as_it_said() {
    let server = demo().await;
    let provider = provider(&server);
    let registered = Registered {
        server,
        provider,
        published: tokio::sync::Mutex::default(),
    };
    conformance::run(&registered).await.assert();
}
