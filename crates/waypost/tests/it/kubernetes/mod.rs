//! The Kubernetes provider against a fake API server.

mod advice;
mod outages;
mod reading;
mod registry;
mod rights;

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use waypost::ProviderError;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::provider::{Answer, Watch};
use waypost_fake_kubernetes::ApiServer;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server whose namespace is `demo`.
async fn demo() -> ApiServer {
    let server = ApiServer::builder().namespace("demo").start().await;
    server.unwrap()
}

fn provider(server: &ApiServer) -> KubernetesProvider {
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    builder.build().unwrap()
}

/// What a watch says next, good or bad.
async fn next(watch: &mut Watch) -> Result<Answer, ProviderError> {
    let next = timeout(PATIENCE, watch.next()).await;
    next.expect("nothing is said").expect("the watch ended")
}
