//! The list of services: several namespaces, and labels.

use std::sync::Arc;

use futures_util::StreamExt;
use serde_json::json;
use tokio::time::timeout;
use waypost_core::provider::{NamesWatch, Provider, ServiceAnswer};
use waypost_core::{Environment, Instance, ProviderError, ProviderErrorKind};
use waypost_fake_kubernetes::manifest;
use waypost_kubernetes::KubernetesProvider;

use crate::{TIMEOUT, next, provider, start_server, until};

/// The first answer about a service.
async fn look_up(provider: &KubernetesProvider, name: &str) -> ServiceAnswer {
    let mut watch = provider.watch(&name.parse().unwrap());
    next(&mut watch).await.unwrap()
}

/// The next answer of a watch of names.
pub(crate) async fn next_names(names: &mut NamesWatch) -> Result<Vec<String>, ProviderError> {
    let next = timeout(TIMEOUT, names.next()).await.unwrap().unwrap();
    next.map(|names| names.iter().map(ToString::to_string).collect())
}

/// Skips answers until one is as expected.
pub(crate) async fn until_names(names: &mut NamesWatch, expected: &[&str]) {
    let found = async {
        loop {
            match names.next().await.unwrap() {
                Ok(found)
                    if found
                        .iter()
                        .map(|name| name.as_str())
                        .eq(expected.iter().copied()) =>
                {
                    return;
                }
                _ => {}
            }
        }
    };
    timeout(TIMEOUT, found)
        .await
        .expect("no such names in time");
}

#[tokio::test]
async fn the_services_of_further_namespaces_are_listed_with_their_namespace() {
    let server = start_server().await;
    for (namespace, name) in [
        ("demo", "web"),
        ("shop", "web"),
        ("shop", "cart"),
        ("other", "x"),
    ] {
        server.put(&manifest::service(namespace, name, &[("http", 80)]));
    }
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    // The default namespace is listed in any case, and once.
    let provider = builder.namespaces(["shop", "demo"]).build().unwrap();
    let mut names = provider.watch_names();
    assert_eq!(
        next_names(&mut names).await.unwrap(),
        ["cart.shop", "web", "web.shop"]
    );
    server.put(&manifest::service("shop", "pay", &[("http", 80)]));
    until_names(&mut names, &["cart.shop", "pay.shop", "web", "web.shop"]).await;
    server.delete("services", "demo", "web");
    until_names(&mut names, &["cart.shop", "pay.shop", "web.shop"]).await;
    // Each listed name can be looked up.
    for name in ["cart.shop", "pay.shop", "web.shop"] {
        assert_eq!(
            look_up(&provider, name).await,
            ServiceAnswer::Instances(Vec::new())
        );
    }
}

#[tokio::test]
async fn a_namespace_that_may_not_be_read_is_an_error_that_names_it() {
    let server = start_server().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    server.put(&manifest::service("shop", "cart", &[("http", 80)]));
    server.add_user("reader");
    server.grant("reader", "demo", &manifest::read_rules(&["list", "watch"]));
    let kubeconfig = server.kubeconfig_of("reader").unwrap();
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    let provider = builder.namespaces(["shop"]).build().unwrap();
    let mut names = provider.watch_names();
    let error = next_names(&mut names).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorised);
    assert!(error.message().contains("shop"), "{error}");
    server.grant("reader", "shop", &manifest::read_rules(&["list", "watch"]));
    until_names(&mut names, &["cart.shop", "web"]).await;
}

#[tokio::test]
async fn only_services_with_the_selected_labels_are_listed() {
    let server = start_server().await;
    for (name, tier) in [("web", "front"), ("cart", "back"), ("db", "back")] {
        let mut service = manifest::service("demo", name, &[("http", 80)]);
        service["metadata"]["labels"] = json!({ "tier": tier });
        server.put(&service);
    }
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    let provider = builder.service_selector("tier=back").build().unwrap();
    let mut names = provider.watch_names();
    assert_eq!(next_names(&mut names).await.unwrap(), ["cart", "db"]);
    let mut moved = manifest::service("demo", "db", &[("http", 80)]);
    moved["metadata"]["labels"] = json!({ "tier": "front" });
    server.put(&moved);
    until_names(&mut names, &["cart"]).await;
    // Look-ups are not limited.
    assert_eq!(
        look_up(&provider, "web").await,
        ServiceAnswer::Instances(Vec::new())
    );
}

#[tokio::test]
async fn invalid_namespaces_and_selectors_are_errors_that_name_the_variable() {
    let server = start_server().await;
    let kubeconfig = server.kubeconfig().to_string_lossy().into_owned();
    for (variable, value) in [
        ("KUBERNETES_NAMESPACES", "shop,Not-Valid"),
        ("KUBERNETES_SERVICE_SELECTOR", "tier in (a, b)"),
    ] {
        let environment = [("KUBECONFIG", &*kubeconfig), (variable, value)];
        let environment = Environment::from_iter(environment);
        let error = KubernetesProvider::from_environment(&environment).unwrap_err();
        assert!(error.to_string().starts_with(variable), "{error}");
    }
}

#[tokio::test]
async fn a_name_can_choose_a_port_of_the_service() {
    let server = start_server().await;
    let mut service = manifest::service("demo", "web", &[("http", 80), ("rpc", 81)]);
    service["spec"]["ports"][1]["appProtocol"] = "kubernetes.io/h2c".into();
    service["metadata"]["annotations"] = json!({ "waypost.dev/port": "http" });
    server.put(&service);
    let ports = [("http", 8080), ("rpc", 9000)];
    let pod = || [manifest::endpoint("10.0.0.1")];
    server.put(&manifest::slice("demo", "web", "web-1", &ports, pod()));
    let other = [("http", 8080)];
    let old = [manifest::endpoint("10.0.0.2")];
    server.put(&manifest::slice("demo", "web", "web-2", &other, old));
    let provider = provider(&server);
    for (name, expected) in [
        ("web_rpc", &["10.0.0.1:9000"][..]),
        ("web_http.demo.svc", &["10.0.0.1:8080", "10.0.0.2:8080"]),
        ("web_other", &[]),
    ] {
        let is_expected = |all: &[Arc<Instance>]| {
            all.iter()
                .map(|it| it.authority())
                .eq(expected.iter().copied())
        };
        let mut watch = provider.watch(&name.parse().unwrap());
        let found = until(&mut watch, is_expected).await;
        if name == "web_rpc" {
            assert_eq!(found[0].meta("app_protocol"), Some("kubernetes.io/h2c"));
        }
    }
}
