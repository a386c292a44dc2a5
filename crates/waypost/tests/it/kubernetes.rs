//! What the provider makes of a cluster's Services and EndpointSlices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use serde_json::{Value, json};
use tokio::time::timeout;
use waypost::{
    Directory, Health, Instance, KubernetesProvider, Provider, Snapshot,
    conformance::{self, Abilities, Harness},
    provider::{Answer, Watch},
};
use waypost_kube_standin::{ApiServer, manifest};

const PATIENCE: Duration = Duration::from_secs(10);

async fn server() -> ApiServer {
    ApiServer::builder()
        .namespace("demo")
        .start()
        .await
        .unwrap()
}

fn provider(server: &ApiServer) -> KubernetesProvider {
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    builder.build().unwrap()
}

#[allow(dead_code)]
fn user(server: &ApiServer, name: &str) -> KubernetesProvider {
    server.add_user(name).unwrap();
    let kubeconfig = server.kubeconfig_of(name).unwrap();
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    builder.build().unwrap()
}

async fn next(watch: &mut Watch) -> Result<Answer, waypost::ProviderError> {
    let next = timeout(PATIENCE, watch.next()).await;
    next.expect("nothing is said").expect("the watch ended")
}

/// What is said of a service at first.
async fn look_up(provider: &KubernetesProvider, name: &str) -> Answer {
    next(&mut provider.watch(&name.parse().unwrap()))
        .await
        .unwrap()
}

async fn instances(provider: &KubernetesProvider, name: &str) -> Vec<Arc<Instance>> {
    match look_up(provider, name).await {
        Answer::Instances(instances) => instances,
        Answer::Unknown => panic!("{name} is unknown"),
    }
}

/// Follows a watch until what it says is as wanted.
#[allow(dead_code)]
async fn until(watch: &mut Watch, wanted: impl Fn(&[Arc<Instance>]) -> bool) -> Vec<Arc<Instance>> {
    let following = async {
        loop {
            if let Some(Ok(Answer::Instances(instances))) = watch.next().await
                && wanted(&instances)
            {
                return instances;
            }
        }
    };
    timeout(PATIENCE, following)
        .await
        .expect("it never is as wanted")
}

struct Cluster {
    server: ApiServer,
    slices: tokio::sync::Mutex<BTreeMap<String, Instance>>,
}

impl Harness for Cluster {
    fn abilities(&self) -> Abilities {
        Abilities::all()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(provider(&self.server))
    }

    /// A slice for each instance, as for those that run outside of the cluster.
    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        async move {
            let mut published = self.slices.lock().await;
            let services = |of: &BTreeMap<String, Instance>| -> BTreeSet<String> {
                of.values().map(|i| i.service().to_string()).collect()
            };
            let slices: BTreeMap<_, _> = content
                .into_iter()
                .map(|instance| (instance.id().to_string(), instance))
                .collect();
            for service in services(&slices) {
                self.server
                    .put(&manifest::service("demo", &service, &[("http", 80)]));
            }
            for (name, instance) in &slices {
                if published.get(name) != Some(instance) {
                    self.server.put(&slice_of(instance));
                }
            }
            for name in published.keys().filter(|name| !slices.contains_key(*name)) {
                self.server.delete("endpointslices", "demo", name);
            }
            for service in services(&published).difference(&services(&slices)) {
                self.server.delete("services", "demo", service);
            }
            *published = slices;
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

fn slice_of(instance: &Instance) -> Value {
    let (id, service) = (instance.id().as_str(), instance.service().as_str());
    let endpoint = manifest::pod(&instance.host().bare(), id, "node", "zone");
    let ports = [("http", instance.port())];
    let mut slice = manifest::slice("demo", service, id, &ports, [endpoint]);
    slice["metadata"]["annotations"] = json!({
        "waypost.dev/version": instance.version(),
        "waypost.dev/weight": instance.weight().to_string(),
        "waypost.dev/tags": instance.tags().collect::<Vec<_>>().join(", "),
        "waypost.dev/meta.edit": instance.meta("edit"),
    });
    slice
}

#[tokio::test]
async fn the_kubernetes_provider_conforms() {
    let cluster = Cluster {
        server: server().await,
        slices: tokio::sync::Mutex::default(),
    };
    conformance::run(&cluster).await.assert();
}

#[allow(dead_code)]
async fn directory_says(
    directory: &Directory,
    name: &str,
    wanted: impl Fn(&Snapshot) -> bool,
) -> Arc<Snapshot> {
    let mut subscription = directory.subscribe(&name.parse().unwrap());
    let following = async {
        loop {
            let snapshot = subscription.changed().await;
            if wanted(&snapshot) {
                return snapshot;
            }
        }
    };
    timeout(PATIENCE, following)
        .await
        .expect("it never says so")
}

#[tokio::test]
async fn pods_become_instances_with_what_is_known_of_them() {
    let server = server().await;
    let mut service = manifest::service("demo", "web", &[("http", 80), ("admin", 81)]);
    service["metadata"]["labels"] = json!({
        "app.kubernetes.io/version": "2.1.0", "team": "shop",
    });
    service["metadata"]["annotations"] = json!({ "example.com/docs": "here", "other": "hidden" });
    server.put(&service);
    let ports = [("admin", 9000), ("http", 8080)];
    let pod = manifest::pod("10.0.0.1", "web-x1", "node-1", "zone-a");
    server.put(&manifest::slice("demo", "web", "web-abc", &ports, [pod]));

    let provider = KubernetesProvider::builder()
        .kubeconfig(server.kubeconfig())
        .annotation("example.com/docs")
        .build()
        .unwrap();
    let [web] = &instances(&provider, "web").await[..] else {
        panic!("one instance")
    };
    assert_eq!(web.id().as_str(), "web-x1");
    assert_eq!(web.url(), "http://10.0.0.1:8080");
    assert_eq!(web.named_port("admin"), Some(9000));
    assert_eq!(web.version(), Some("2.1.0"));
    assert_eq!(web.zone(), Some("zone-a"));
    assert_eq!(web.health(), Health::Passing);
    let metadata: BTreeMap<_, _> = web.metadata().collect();
    let expected = BTreeMap::from([
        ("app.kubernetes.io/version", "2.1.0"),
        ("example.com/docs", "here"),
        ("namespace", "demo"),
        ("node", "node-1"),
        ("pod", "web-x1"),
        ("team", "shop"),
        ("zone", "zone-a"),
    ]);
    assert_eq!(metadata, expected);
}
