//! The provider against a real Consul and against the embedded registry, through the public API.

#![allow(clippy::unwrap_used)] // a panic fails the test

mod conformance;
mod connection;
mod discovery;
mod registration;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use waypost_agent::Agent;
use waypost_consul::{ConsulBuilder, ConsulProvider};
use waypost_core::provider::{InstanceReport, Provider, Registry, ServiceAnswer, Watch};
use waypost_core::{Instance, ProviderError, Registration, ServiceName, ServiceRegistration};
use waypost_testkit::Consul;

/// The time limit for an event that a test expects.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A server of Consul's HTTP API.
enum Server {
    Consul(Consul),
    Embedded(Agent),
}

impl Server {
    async fn start_each() -> [Self; 2] {
        let agent = Agent::start().await.unwrap();
        [Self::Consul(Consul::start().await), Self::Embedded(agent)]
    }

    fn address(&self) -> String {
        match self {
            Self::Consul(consul) => consul.address(),
            Self::Embedded(agent) => agent.http_addr().to_string(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    fn provider(&self) -> ConsulProvider {
        ConsulProvider::new(&self.address()).unwrap()
    }
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

/// A registration of the service `web`.
fn web_registration(id: &str, port: u16) -> ServiceRegistration {
    ServiceRegistration::new("web", port).unwrap().id(id)
}

fn provider_at(consul: &Consul, builder: ConsulBuilder) -> ConsulProvider {
    builder.address(&consul.address()).build().unwrap()
}

async fn register(provider: &ConsulProvider, registration: ServiceRegistration) -> Registration {
    let registration = registration.resolve(provider.local_address()).unwrap();
    let report = InstanceReport::alive();
    provider.register(&registration, &report).await.unwrap();
    registration
}

/// The next answer or error of a watch.
async fn next(watch: &mut Watch) -> Result<Vec<Arc<Instance>>, ProviderError> {
    let item = timeout(TIMEOUT, watch.next()).await;
    match item.expect("no answer in time").expect("the watch ended")? {
        ServiceAnswer::Instances(instances) => Ok(instances),
        ServiceAnswer::Unknown => Ok(Vec::new()),
    }
}

/// Waits for an answer that fulfils a condition. The watch must not fail.
async fn until(
    watch: &mut Watch,
    condition: impl Fn(&[Arc<Instance>]) -> bool,
) -> Vec<Arc<Instance>> {
    let waiting = async {
        loop {
            let instances = next(watch).await.unwrap();
            if condition(&instances) {
                return instances;
            }
        }
    };
    let found = timeout(TIMEOUT, waiting).await;
    found.expect("no such answer in time")
}

/// Waits until `web` has instances with exactly these ids.
async fn until_ids(provider: &ConsulProvider, expected: &[&str]) -> Vec<Arc<Instance>> {
    let mut watch = provider.watch(&web());
    let is_expected = |instances: &[Arc<Instance>]| {
        let ids = instances.iter().map(|instance| instance.id().as_str());
        ids.eq(expected.iter().copied())
    };
    until(&mut watch, is_expected).await
}
