//! All namespaces at once: one list, one pair of watches, and permissions at the cluster scope.

use futures_util::StreamExt;
use tokio::time::timeout;
use waypost_core::provider::{Provider, ServiceAnswer};
use waypost_core::{Environment, ProviderErrorKind};
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_kubernetes::KubernetesProvider;

use crate::names::{next_names, until_names};
use crate::permissions::advised_documents;
use crate::{TIMEOUT, next, start_server, until, until_only};

const USER: &str = "system:serviceaccount:demo:waypost";

/// A provider with the rights of an administrator.
fn provider(server: &ApiServer) -> KubernetesProvider {
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    builder.all_namespaces().build().unwrap()
}

/// Creates a Service with one endpoint.
fn put(server: &ApiServer, namespace: &str, name: &str, address: &str) {
    server.put(&manifest::service(namespace, name, &[("http", 80)]));
    let (slice, ports) = (format!("{name}-1"), [("http", 8080)]);
    let endpoint = [manifest::endpoint(address)];
    server.put(&manifest::slice(namespace, name, &slice, &ports, endpoint));
}

#[tokio::test]
async fn services_of_all_namespaces_are_listed_and_looked_up_with_two_watches() {
    let server = start_server().await;
    // Services and slices of the same names, in each namespace.
    for (namespace, number) in [("demo", 1), ("shop", 2), ("pay", 3)] {
        put(&server, namespace, "web", &format!("10.0.0.{number}"));
        put(&server, namespace, "db", &format!("10.0.1.{number}"));
    }
    let provider = provider(&server);
    let mut names = provider.watch_names();
    let all = ["db", "db.pay", "db.shop", "web", "web.pay", "web.shop"];
    assert_eq!(next_names(&mut names).await.unwrap(), all);
    for (name, url) in [
        ("web", "http://10.0.0.1:8080"),
        ("web.shop", "http://10.0.0.2:8080"),
        ("web.pay.svc.cluster.local", "http://10.0.0.3:8080"),
        ("db.shop", "http://10.0.1.2:8080"),
    ] {
        let mut watch = provider.watch(&name.parse().unwrap());
        let instance = until_only(&mut watch, url).await;
        let namespace = name.split('.').nth(1).unwrap_or("demo");
        assert_eq!(instance.meta("namespace"), Some(namespace));
    }
    // A change in one namespace changes nothing in the others.
    let mut shop = provider.watch(&"web.shop".parse().unwrap());
    put(&server, "shop", "web", "10.0.0.4");
    until_only(&mut shop, "http://10.0.0.4:8080").await;
    server.delete("endpointslices", "shop", "web-1");
    until(&mut shop, <[_]>::is_empty).await;
    for (name, url) in [
        ("web", "http://10.0.0.1:8080"),
        ("web.pay", "http://10.0.0.3:8080"),
        ("db.shop", "http://10.0.1.2:8080"),
    ] {
        until_only(&mut provider.watch(&name.parse().unwrap()), url).await;
    }
    let requests = server.requests();
    assert!(
        requests.iter().all(|it| it.namespace.is_empty()),
        "{requests:?}"
    );
}

#[tokio::test]
async fn services_of_a_namespace_appear_and_vanish_with_it() {
    let builder = ApiServer::builder().namespace("demo");
    let builder = builder.namespace_deletion(std::time::Duration::ZERO);
    let server = builder.start().await.unwrap();
    put(&server, "demo", "web", "10.0.0.1");
    let provider = provider(&server);
    let mut names = provider.watch_names();
    until_names(&mut names, &["web"]).await;
    let mut watch = provider.watch(&"cart.new".parse().unwrap());
    assert_eq!(next(&mut watch).await.unwrap(), ServiceAnswer::Unknown);
    put(&server, "new", "cart", "10.0.0.2");
    until_names(&mut names, &["cart.new", "web"]).await;
    until_only(&mut watch, "http://10.0.0.2:8080").await;
    server.delete("namespaces", "", "new");
    until_names(&mut names, &["web"]).await;
    let vanished = async { while next(&mut watch).await.unwrap() != ServiceAnswer::Unknown {} };
    timeout(TIMEOUT, vanished).await.unwrap();
}

#[tokio::test]
async fn without_permissions_at_the_cluster_scope_the_error_names_them_and_the_cluster_role() {
    let server = start_server().await;
    put(&server, "demo", "web", "10.0.0.1");
    put(&server, "shop", "cart", "10.0.0.2");
    server.add_user(USER);
    // Rights in a namespace don't suffice.
    server.grant(USER, "demo", &manifest::read_rules(&["list", "watch"]));
    let kubeconfig = server.kubeconfig_of(USER).unwrap();
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    let provider = builder.all_namespaces().build().unwrap();
    let mut names = provider.watch_names();
    let error = next_names(&mut names).await.unwrap_err();
    assert_eq!(error.kind(), ProviderErrorKind::NotAuthorised);
    for part in [
        "403",
        USER,
        "cannot list resource",
        "at the cluster scope",
        "in all namespaces: list services, watch services, list endpointslices, watch endpointslices",
    ] {
        assert!(error.message().contains(part), "{error}");
    }
    let report = provider.access_report().await.unwrap();
    assert!(report.lists_all_namespaces);
    let missing = report.missing_for_lookups.unwrap();
    assert_eq!(missing.permissions.len(), 4);
    let documents = advised_documents(error);
    let kinds: Vec<_> = documents.iter().map(|it| it["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("ClusterRole"), Some("ClusterRoleBinding")]);
    for document in &documents {
        server.put(document);
    }
    until_names(&mut names, &["cart.shop", "web"]).await;
    let report = provider.access_report().await.unwrap();
    assert_eq!(report.missing_for_lookups, None);
}

#[tokio::test]
async fn names_of_all_namespaces_are_held_while_the_server_is_down() {
    let server = start_server().await;
    put(&server, "demo", "web", "10.0.0.1");
    put(&server, "shop", "cart", "10.0.0.2");
    let provider = provider(&server);
    let mut names = provider.watch_names();
    until_names(&mut names, &["cart.shop", "web"]).await;
    let mut watch = provider.watch(&"cart.shop".parse().unwrap());
    until_only(&mut watch, "http://10.0.0.2:8080").await;
    server.kill().await;
    assert!(next_names(&mut names).await.is_err());
    put(&server, "pay", "web", "10.0.0.3");
    server.restart().await.unwrap();
    // Only errors and complete answers.
    loop {
        match timeout(TIMEOUT, names.next()).await.unwrap().unwrap() {
            Err(_) => {}
            Ok(names) if names.len() == 3 => return,
            Ok(names) => assert_eq!(names.len(), 2, "{names:?}"),
        }
    }
}

#[tokio::test]
async fn the_variable_stands_for_all_namespaces_if_it_is_an_asterisk() {
    let server = start_server().await;
    put(&server, "shop", "cart", "10.0.0.2");
    let kubeconfig = server.kubeconfig().to_string_lossy().into_owned();
    let environment = |namespaces: &str| {
        let variables = [
            ("KUBECONFIG", &*kubeconfig),
            ("KUBERNETES_NAMESPACES", namespaces),
        ];
        KubernetesProvider::from_environment(&Environment::from_iter(variables))
    };
    let mut names = environment(" * ").unwrap().watch_names();
    until_names(&mut names, &["cart.shop"]).await;
    let error = environment("*,shop").unwrap_err().to_string();
    assert!(
        error.starts_with("KUBERNETES_NAMESPACES: \"*\" stands for all namespaces"),
        "{error}"
    );
}
