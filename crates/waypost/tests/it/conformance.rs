//! Waypost's own providers pass the conformance suite.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::json;
use waypost::conformance::{Capabilities, CaseResult, Harness};
use waypost::provider::consul::ConsulProvider;
use waypost::provider::{
    EnvProvider, MemoryProvider, NamesWatch, Provider, ServiceAnswer, StaticProvider, Watch,
};
use waypost::{Environment, Instance, ServiceName, conformance};
use waypost_agent::Agent;
use waypost_testkit::{Consul, Fault, FaultProxy, http_client};

struct Memory {
    provider: MemoryProvider,
    known: Mutex<Vec<ServiceName>>,
}

impl Harness for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all().without_faults()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.provider.clone())
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        let mut wanted: BTreeMap<ServiceName, Vec<Instance>> = BTreeMap::new();
        for name in std::mem::take(&mut *self.known.lock().unwrap()) {
            wanted.insert(name, Vec::new());
        }
        for instance in content {
            let service = instance.service().clone();
            wanted.entry(service).or_default().push(instance);
        }
        for (service, instances) in wanted {
            self.provider.replace(&service, instances);
            self.known.lock().unwrap().push(service);
        }
        async {}.boxed()
    }
}

#[derive(Default)]
struct Env {
    variables: Mutex<Environment>,
}

impl Harness for Env {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
            .without_faults()
            .without_changes()
            .single_address()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(EnvProvider::new(&self.variables.lock().unwrap()).unwrap())
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        let variable = |instance: &Instance| {
            let name = instance.service().as_str().to_uppercase().replace('-', "_");
            (format!("SERVICE_{name}_URL"), instance.url().to_owned())
        };
        *self.variables.lock().unwrap() = content.iter().map(variable).collect();
        async {}.boxed()
    }
}

struct File {
    folder: tempfile::TempDir,
    content: Mutex<String>,
}

impl File {
    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("services.json")
    }
}

impl Harness for File {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(StaticProvider::open(self.path()).unwrap())
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        let mut services: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
        for instance in &content {
            let all = services.entry(instance.service().to_string()).or_default();
            all.push(json!({
                "id": instance.id(), "url": instance.url(), "version": instance.version(),
                "tags": instance.tags().collect::<Vec<_>>(), "weight": instance.weight(),
                "metadata": instance.metadata().collect::<BTreeMap<_, _>>(),
            }));
        }
        let services: BTreeMap<_, _> = services
            .into_iter()
            .map(|(service, instances)| (service, json!({ "instances": instances })))
            .collect();
        *self.content.lock().unwrap() = json!(services).to_string();
        self.clear_fault()
    }

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        std::fs::write(self.path(), "{ not JSON").unwrap();
        async {}.boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
        std::fs::write(self.path(), &*self.content.lock().unwrap()).unwrap();
        async {}.boxed()
    }
}

/// A server with Consul's API, behind a proxy that can make it fail.
struct ConsulApi {
    url: String,
    proxy: FaultProxy,
    registered: tokio::sync::Mutex<BTreeMap<String, Instance>>,
    client: reqwest::Client,
}

impl ConsulApi {
    async fn new(address: String) -> Self {
        let proxy = FaultProxy::start(address.clone()).await;
        Self {
            url: format!("http://{address}/v1/agent/service"),
            proxy,
            registered: tokio::sync::Mutex::default(),
            client: http_client(),
        }
    }

    async fn put(&self, path: &str, body: serde_json::Value) {
        let request = self.client.put(format!("{}/{path}", self.url)).json(&body);
        let reply = request.send().await.unwrap();
        assert!(
            reply.status().is_success(),
            "{}",
            reply.text().await.unwrap()
        );
    }
}

impl Harness for ConsulApi {
    fn capabilities(&self) -> Capabilities {
        let mut all = Capabilities::all();
        // A real Consul takes longer for each registration the more it has.
        all.max_instances = 300;
        all
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(ConsulProvider::new(&self.proxy.address()).unwrap())
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        async move {
            let mut registered = self.registered.lock().await;
            let wanted: BTreeMap<_, _> = content
                .into_iter()
                .map(|instance| (instance.id().to_string(), instance))
                .collect();
            for id in registered.keys().filter(|id| !wanted.contains_key(*id)) {
                self.put(&format!("deregister/{id}"), json!(null)).await;
            }
            for (id, instance) in &wanted {
                if registered.get(id) == Some(instance) {
                    continue;
                }
                let mut meta: BTreeMap<_, _> = instance.metadata().collect();
                meta.extend(instance.version().map(|version| ("version", version)));
                let weight = instance.weight().get();
                let definition = json!({
                    "ID": id, "Name": instance.service(), "Address": instance.host().bare(),
                    "Port": instance.port(), "Meta": meta,
                    "Tags": instance.tags().collect::<Vec<_>>(),
                    "Weights": { "Passing": weight, "Warning": weight },
                });
                self.put("register", definition).await;
            }
            *registered = wanted;
        }
        .boxed()
    }

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        self.proxy.inject(Fault::Reset);
        async {}.boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
        self.proxy.inject(Fault::None);
        async {}.boxed()
    }
}

async fn assert_conforms(harness: &dyn Harness, skipped: usize) {
    let report = conformance::run(harness).await;
    report.assert();
    let skips = report
        .cases()
        .filter(|(_, result)| **result == CaseResult::Skipped);
    assert_eq!(skips.count(), skipped, "{report}");
}

#[tokio::test]
async fn the_memory_provider_conforms() {
    let memory = Memory {
        provider: MemoryProvider::new(),
        known: Mutex::default(),
    };
    assert_conforms(&memory, 2).await;
}

#[tokio::test]
async fn the_env_provider_conforms() {
    assert_conforms(&Env::default(), 7).await;
}

#[tokio::test]
async fn the_static_provider_conforms() {
    let file = File {
        folder: tempfile::tempdir().unwrap(),
        content: Mutex::default(),
    };
    assert_conforms(&file, 0).await;
}

#[tokio::test]
async fn the_consul_provider_conforms_on_a_real_consul() {
    let consul = Consul::start().await;
    assert_conforms(&ConsulApi::new(consul.address()).await, 0).await;
}

#[tokio::test]
async fn the_consul_provider_conforms_on_the_embedded_registry() {
    let agent = Agent::start().await.unwrap();
    assert_conforms(&ConsulApi::new(agent.http_addr().to_string()).await, 0).await;
}

/// A provider with the worst fault: it reports a failure as an empty answer.
#[derive(Debug, Clone, Default)]
struct EmptyOnFailure {
    memory: MemoryProvider,
    is_down: tokio::sync::watch::Sender<bool>,
}

impl Provider for EmptyOnFailure {
    fn describe(&self) -> Arc<str> {
        "empty on failure".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let good = self.memory.watch(service);
        let downs = stream::unfold(self.is_down.subscribe(), |mut downs| async move {
            downs.wait_for(|down| *down).await.ok()?;
            Some((Ok(ServiceAnswer::Unknown), downs))
        });
        stream::select(good, downs.take(1)).boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        self.memory.watch_names()
    }
}

struct EmptyOnFailureHarness {
    memory: Memory,
    provider: EmptyOnFailure,
}

impl Harness for EmptyOnFailureHarness {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(self.provider.clone())
    }

    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
        self.memory.publish(content)
    }

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        self.provider.is_down.send_replace(true);
        async {}.boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
        self.provider.is_down.send_replace(false);
        async {}.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_whose_failures_look_like_empty_answers_does_not_conform() {
    let provider = EmptyOnFailure::default();
    let memory = Memory {
        provider: provider.memory.clone(),
        known: Mutex::default(),
    };
    let report = conformance::run(&EmptyOnFailureHarness { memory, provider }).await;
    let failed = report
        .cases()
        .filter(|(_, result)| matches!(result, CaseResult::Failed(_)));
    let failed: Vec<_> = failed.map(|(name, _)| name).collect();
    assert_eq!(
        failed,
        ["a failure is an error, never an answer"],
        "{report}"
    );
}
