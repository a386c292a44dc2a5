//! Runs the conformance suite for providers on instances that are registered.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use waypost::conformance::{Capabilities, Harness};
use waypost::provider::Provider;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::{Instance, InstanceId, Registrar, ServiceRegistration, conformance};
use waypost_fake_kubernetes::ApiServer;

use super::super::start_server;
use super::{provider, register};

/// A cluster in which all instances are registered.
struct Registered {
    server: ApiServer,
    provider: Arc<KubernetesProvider>,
    published: tokio::sync::Mutex<BTreeMap<InstanceId, (Instance, Registrar)>>,
}

impl Harness for Registered {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::all();
        capabilities.max_instances = 30;
        capabilities
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

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        self.server.kill().boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
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
async fn registered_instances_conform() {
    let server = start_server().await;
    let provider = provider(&server);
    let registered = Registered {
        server,
        provider,
        published: tokio::sync::Mutex::default(),
    };
    conformance::run(&registered).await.assert();
}
