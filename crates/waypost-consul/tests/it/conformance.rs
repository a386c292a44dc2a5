//! The conformance suite, with a proxy that injects faults.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use waypost_agent::Agent;
use waypost_consul::ConsulProvider;
use waypost_core::conformance::{Capabilities, CaseResult, Harness};
use waypost_core::provider::Provider;
use waypost_core::{Instance, conformance};
use waypost_testkit::{Consul, Fault, FaultProxy, http_client};

#[tokio::test]
async fn the_provider_conforms_with_a_real_consul() {
    let consul = Consul::start().await;
    assert_conforms(consul.address()).await;
}

#[tokio::test]
async fn the_provider_conforms_with_the_embedded_registry() {
    let agent = Agent::start().await.unwrap();
    assert_conforms(agent.http_addr().to_string()).await;
}

async fn assert_conforms(server: String) {
    let harness = ConsulHarness {
        url: format!("http://{server}/v1/agent/service"),
        proxy: FaultProxy::start(server).await,
        registered: Mutex::default(),
        client: http_client(),
    };
    let report = conformance::run(&harness).await;
    report.assert();
    let mut cases = report.cases();
    let is_complete = cases.all(|(_, result)| *result != CaseResult::Skipped);
    assert!(is_complete, "{report}");
}

struct ConsulHarness {
    /// The URL of the server itself.
    url: String,
    /// The proxy that the provider connects to.
    proxy: FaultProxy,
    registered: Mutex<BTreeMap<String, Instance>>,
    client: reqwest::Client,
}

impl ConsulHarness {
    async fn put(&self, path: &str, body: Value) {
        let request = self.client.put(format!("{}/{path}", self.url)).json(&body);
        let response = request.send().await.unwrap();
        response.error_for_status().unwrap();
    }
}

impl Harness for ConsulHarness {
    fn capabilities(&self) -> Capabilities {
        let mut all = Capabilities::all();
        // Consul takes longer for each registration, the more instances an agent has.
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
                if registered.get(id) != Some(instance) {
                    self.put("register", definition(instance)).await;
                }
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

fn definition(instance: &Instance) -> Value {
    let mut meta: BTreeMap<_, _> = instance.metadata().collect();
    meta.extend(instance.version().map(|version| ("version", version)));
    let weight = instance.weight().get();
    json!({
        "ID": instance.id(), "Name": instance.service(), "Address": instance.host().bare(),
        "Port": instance.port(), "Meta": meta,
        "Tags": instance.tags().collect::<Vec<_>>(),
        "Weights": { "Passing": weight, "Warning": weight },
    })
}
