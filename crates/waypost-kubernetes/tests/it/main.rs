//! The provider against a fake API server, through the public API.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod all_namespaces;
mod conformance;
mod credentials;
mod discovery;
mod names;
mod objects;
mod permissions;
mod watches;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use waypost_core::provider::{Provider, ServiceAnswer, Watch};
use waypost_core::{Instance, ProviderError};
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_kubernetes::KubernetesProvider;

/// The time limit for an event that a test expects.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The URL of the only instance of `web`, after `put_web(server, "10.0.0.1")`.
const WEB_URL: &str = "http://10.0.0.1:8080";

/// Starts an API server with the namespace `demo`, which is also that of its kubeconfig.
async fn start_server() -> ApiServer {
    let server = ApiServer::builder().namespace("demo").start().await;
    server.unwrap()
}

/// Starts an API server with the Service `web`, whose only endpoint is 10.0.0.1.
async fn start_server_with_web() -> ApiServer {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    server
}

/// Makes this address the only endpoint of the Service `web`.
fn put_web(server: &ApiServer, address: &str) {
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let endpoint = [manifest::endpoint(address)];
    let ports = [("http", 8080)];
    server.put(&manifest::slice("demo", "web", "web-1", &ports, endpoint));
}

/// A provider with the permissions of an administrator.
fn provider(server: &ApiServer) -> KubernetesProvider {
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    builder.build().unwrap()
}

fn watch_web(provider: &KubernetesProvider) -> Watch {
    provider.watch(&"web".parse().unwrap())
}

/// The next answer or error of a watch.
async fn next(watch: &mut Watch) -> Result<ServiceAnswer, ProviderError> {
    let next = timeout(TIMEOUT, watch.next()).await;
    next.expect("no answer in time").expect("the watch ended")
}

/// Waits, through errors, for an answer that fulfils a condition.
async fn until(
    watch: &mut Watch,
    condition: impl Fn(&[Arc<Instance>]) -> bool,
) -> Vec<Arc<Instance>> {
    let waiting = async {
        loop {
            if let Ok(ServiceAnswer::Instances(instances)) = next(watch).await
                && condition(&instances)
            {
                return instances;
            }
        }
    };
    let found = timeout(TIMEOUT, waiting).await;
    found.expect("no such answer in time")
}

/// Waits, through errors, for an answer with only one instance, which has this URL.
async fn until_only(watch: &mut Watch, url: &str) -> Arc<Instance> {
    let is_only = |all: &[Arc<Instance>]| matches!(all, [only] if only.url() == url);
    until(watch, is_only).await.remove(0)
}
