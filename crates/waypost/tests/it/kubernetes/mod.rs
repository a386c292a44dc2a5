//! A client of Kubernetes, against a fake API server. The tests of the provider alone are in its own
//! crate.

mod discovery;
mod outages;
mod registration;

use std::time::Duration;

use waypost::provider::kubernetes::KubernetesProvider;
use waypost_fake_kubernetes::ApiServer;

/// The time limit for an event that a test expects.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Starts an API server with the namespace `demo`, which is also that of its kubeconfig.
async fn start_server() -> ApiServer {
    let server = ApiServer::builder().namespace("demo").start().await;
    server.unwrap()
}

fn provider(server: &ApiServer) -> KubernetesProvider {
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    builder.build().unwrap()
}
