//! Who may not read is told what to apply, and needs nothing else afterwards.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::provider::{Answer, Provider, Watch};
use waypost::{Error, ProviderError};
use waypost_fake_kubernetes::{ApiServer, manifest};

use super::demo;

const PATIENCE: Duration = Duration::from_secs(60);
const WHO: &str = "system:serviceaccount:demo:shop";

/// A server with one instance of `web`, and a provider that may do nothing there yet.
async fn set_up() -> (ApiServer, KubernetesProvider) {
    let server = demo().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let pods = [manifest::endpoint("10.0.0.1")];
    server.put(&manifest::slice(
        "demo",
        "web",
        "web-1",
        &[("http", 80)],
        pods,
    ));
    server.add_user(WHO);
    let kubeconfig = server.kubeconfig_of(WHO).unwrap();
    let built = KubernetesProvider::builder().kubeconfig(kubeconfig).build();
    (server, built.unwrap())
}

async fn next(watch: &mut Watch) -> Result<Answer, ProviderError> {
    let next = timeout(PATIENCE, watch.next()).await;
    next.expect("nothing is said").expect("the watch ended")
}

/// The documents that a refusal says to apply.
fn to_apply(refusal: ProviderError) -> Vec<Value> {
    let error = Error::from(refusal);
    assert!(matches!(error, Error::NotAuthorised { .. }), "{error:?}");
    let said = error.to_string();
    let (_, yaml) = said.split_once("kubectl apply -f:\n").expect(&said);
    serde_saphyr::from_multiple(yaml).unwrap()
}

async fn web(watch: &mut Watch) -> usize {
    let found = async {
        loop {
            if let Ok(Answer::Instances(instances)) = next(watch).await {
                return instances.len();
            }
        }
    };
    timeout(PATIENCE, found).await.expect("it is never found")
}

#[tokio::test]
async fn who_may_not_read_is_told_the_role_and_recovers_by_itself() {
    let (server, provider) = set_up().await;
    let mut watch = provider.watch(&"web".parse().unwrap());
    let documents = to_apply(next(&mut watch).await.unwrap_err());
    for _ in 0..3 {
        let again = to_apply(next(&mut watch).await.unwrap_err());
        assert_eq!(again, documents);
    }
    for document in &documents {
        server.put(document);
    }
    assert_eq!(web(&mut watch).await, 1);
}

#[tokio::test]
async fn who_may_list_but_not_watch_has_an_answer_that_is_known_to_be_frozen() {
    let (server, provider) = set_up().await;
    server.grant(WHO, "demo", &manifest::read_rules(&["list"]));
    let mut watch = provider.watch(&"web".parse().unwrap());
    assert_eq!(web(&mut watch).await, 1);
    let refusal = loop {
        match next(&mut watch).await {
            Ok(Answer::Instances(instances)) => assert_eq!(instances.len(), 1),
            Ok(Answer::Unknown) => panic!("it was known"),
            Err(refusal) => break refusal,
        }
    };
    let missing = "namespace demo: watch services, watch endpointslices;";
    assert!(refusal.message().contains(missing), "{refusal}");
    for document in &to_apply(refusal) {
        server.put(document);
    }
    let pods = ["10.0.0.1", "10.0.0.2"].map(manifest::endpoint);
    server.put(&manifest::slice(
        "demo",
        "web",
        "web-1",
        &[("http", 80)],
        pods,
    ));
    while web(&mut watch).await != 2 {}
}
