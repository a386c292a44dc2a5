//! Runs the conformance suite for providers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use waypost_core::conformance::{Capabilities, Harness};
use waypost_core::provider::Provider;
use waypost_core::{Instance, conformance};
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_kubernetes::KubernetesProvider;

use crate::start_server;

struct Cluster {
    server: ApiServer,
    in_all_namespaces: bool,
    slices: tokio::sync::Mutex<BTreeMap<String, Instance>>,
}

impl Harness for Cluster {
    fn capabilities(&self) -> Capabilities {
        Capabilities::all()
    }

    fn provider(&self) -> Arc<dyn Provider> {
        let builder = KubernetesProvider::builder().kubeconfig(self.server.kubeconfig());
        let builder = if self.in_all_namespaces {
            builder.all_namespaces()
        } else {
            builder
        };
        Arc::new(builder.build().unwrap())
    }

    /// Writes a slice for each instance, as for instances outside the cluster.
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

    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        self.server.kill().boxed()
    }

    fn clear_fault(&self) -> BoxFuture<'_, ()> {
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
    for in_all_namespaces in [false, true] {
        let cluster = Cluster {
            server: start_server().await,
            in_all_namespaces,
            slices: tokio::sync::Mutex::default(),
        };
        conformance::run(&cluster).await.assert();
    }
}
