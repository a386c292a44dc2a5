//! The conformance suite, with SRV and with address records.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use tokio::sync::Mutex;
use waypost_agent::Agent;
use waypost_core::conformance::{Capabilities, CaseResult, Harness};
use waypost_core::provider::Provider;
use waypost_core::{Instance, conformance};
use waypost_dns::DnsProvider;
use waypost_testkit::http_client;

#[tokio::test]
async fn the_provider_conforms_with_srv_records() {
    assert_conforms(None).await;
}

#[tokio::test]
async fn the_provider_conforms_with_address_records() {
    assert_conforms(Some(8080)).await;
}

async fn assert_conforms(port: Option<u16>) {
    let dns = SocketAddr::from(([127, 0, 0, 1], 0));
    let agent = Agent::builder().dns(Some(dns)).start().await.unwrap();
    let harness = DnsHarness {
        url: format!("{}/v1/agent/service", agent.url()),
        agent,
        port,
        registered: Mutex::default(),
        client: http_client(),
    };
    let report = conformance::run(&harness).await;
    report.assert();
    // DNS has no details and can't list names.
    let skipped = report
        .cases()
        .filter(|(_, result)| **result == CaseResult::Skipped);
    assert_eq!(skipped.count(), 2, "{report}");
}

struct DnsHarness {
    agent: Agent,
    url: String,
    port: Option<u16>,
    registered: Mutex<BTreeMap<String, Instance>>,
    client: reqwest::Client,
}

impl DnsHarness {
    async fn put(&self, path: &str, body: serde_json::Value) {
        let request = self.client.put(format!("{}/{path}", self.url)).json(&body);
        request.send().await.unwrap().error_for_status().unwrap();
    }
}

impl Harness for DnsHarness {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::all().addresses_only().without_names();
        // A response over TCP has at most 64 KiB.
        capabilities.max_instances = 300;
        capabilities
    }

    fn provider(&self) -> Arc<dyn Provider> {
        let builder = DnsProvider::builder()
            .server(self.agent.dns_addr().unwrap())
            .name("{service}.service.consul")
            .min_refresh(Duration::from_millis(50));
        let builder = match self.port {
            Some(port) => builder.port(port),
            None => builder,
        };
        Arc::new(builder.build().unwrap())
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
                    let definition = json!({
                        "ID": id, "Name": instance.service(), "Port": instance.port(),
                        "Address": instance.host().bare(),
                    });
                    self.put("register", definition).await;
                }
            }
            *registered = wanted;
        }
        .boxed()
    }

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        self.agent.faults().refuse(true);
        async {}.boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
        self.agent.faults().refuse(false);
        async {}.boxed()
    }
}
