//! Routes from HTTPRoutes of a fake API server, to real HTTP servers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use waypost::ServiceDiscoveryClient;
use waypost::directory::DirectoryOptions;
use waypost::provider::MemoryProvider;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_gateway::{Config, GatewayApi};
use waypost_testkit::Logs;

use crate::support::{FullResponse, Origin, TestGateway, body, with_deadline};

pub(crate) const API: &str = "gateway.networking.k8s.io/v1";

/// An API server with a GatewayClass and the Gateway `front` in the namespace `shop`.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let server = ApiServer::builder().namespace("shop").start().await;
        let server = server.expect("an API server");
        server.put(&json!({
            "apiVersion": API, "kind": "GatewayClass", "metadata": { "name": "waypost" },
            "spec": { "controllerName": "waypost.dev/gateway" },
        }));
        server.put(&json!({
            "apiVersion": API, "kind": "Gateway",
            "metadata": { "namespace": "shop", "name": "front" },
            "spec": { "gatewayClassName": "waypost", "listeners": [
                { "name": "http", "port": 80, "protocol": "HTTP" },
            ] },
        }));
        Self { server }
    }

    /// Puts a Service with one port and one endpoint.
    pub(crate) fn put_service(&self, name: &str, origin: &Origin) {
        self.put_service_in("shop", name, origin);
    }

    pub(crate) fn put_service_in(&self, namespace: &str, name: &str, origin: &Origin) {
        let address = origin.address;
        self.server
            .put(&manifest::service(namespace, name, &[("http", 80)]));
        let endpoint = [manifest::endpoint(&address.ip().to_string())];
        let ports = [("http", address.port())];
        let slice = format!("{name}-1");
        self.server
            .put(&manifest::slice(namespace, name, &slice, &ports, endpoint));
    }

    pub(crate) fn put_route(&self, name: &str, hostnames: &[&str], rules: &Value) {
        self.server.put(&json!({
            "apiVersion": API, "kind": "HTTPRoute",
            "metadata": { "namespace": "shop", "name": name },
            "spec": { "parentRefs": [{ "name": "front" }], "hostnames": hostnames, "rules": rules },
        }));
    }

    pub(crate) fn provider(&self) -> KubernetesProvider {
        let builder = KubernetesProvider::builder().kubeconfig(self.server.kubeconfig());
        builder.build().expect("a provider")
    }

    async fn gateway(&self) -> TestGateway {
        self.gateway_with(|_| ()).await
    }

    async fn gateway_with(&self, edit: impl FnOnce(&mut Config)) -> TestGateway {
        let provider = self.provider();
        let client = ServiceDiscoveryClient::new(Arc::new(provider.clone()));
        self.gateway_on(client, provider, edit).await
    }

    pub(crate) async fn gateway_on(
        &self,
        client: ServiceDiscoveryClient,
        provider: KubernetesProvider,
        edit: impl FnOnce(&mut Config),
    ) -> TestGateway {
        let memory = MemoryProvider::new();
        TestGateway::start_with_client(client, memory, |config| {
            config.register = false;
            config.list_routes = false;
            config.discovered_routes = false;
            config.gateway_api = Some(GatewayApi::new(provider, "waypost"));
            edit(config);
        })
        .await
    }

    /// Waits until a condition of the only parent of a route has this status and reason.
    async fn until_condition(&self, route: &str, kind: &str, status: &str, reason: &str) {
        until(&format!("{kind}={status} {reason}"), async || {
            let object = self
                .server
                .get("httproutes", "shop", route)
                .unwrap_or_default();
            let conditions = object["status"]["parents"][0]["conditions"].clone();
            let conditions = conditions.as_array().cloned().unwrap_or_default();
            conditions
                .iter()
                .any(|it| it["type"] == kind && it["status"] == status && it["reason"] == reason)
        })
        .await;
    }
}

pub(crate) fn to(service: &str) -> Value {
    json!([{ "backendRefs": [{ "name": service, "port": 80 }] }])
}

/// Repeats a check until it holds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    with_deadline(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

async fn get(gateway: &TestGateway, host: &str, path: &str) -> FullResponse {
    let request = Request::get(gateway.url(path)).header("host", host);
    gateway.send(request).await
}

/// Waits until a request gets this status and text.
async fn until_text(gateway: &TestGateway, host: &str, path: &str, text: &str) {
    until(text, async || {
        let response = get(gateway, host, path).await;
        response.status == StatusCode::OK && response.text() == text
    })
    .await;
}

async fn until_status(gateway: &TestGateway, host: &str, path: &str, status: u16) {
    until(&status.to_string(), async || {
        get(gateway, host, path).await.status == status
    })
    .await;
}

/// A server that responds with the method, path and some headers of the request.
async fn echo() -> Origin {
    Origin::start(|request| async move {
        let header = |name: &str| {
            let value = request.headers().get(name);
            value
                .map_or("-", |value| value.to_str().unwrap_or("?"))
                .to_owned()
        };
        let text = format!(
            "{} host={} team={} debug={}",
            request.uri(),
            header("host"),
            header("x-team"),
            header("x-debug")
        );
        Response::new(body(text))
    })
    .await
}

#[tokio::test]
async fn a_route_is_used_once_it_is_there_and_no_longer_when_it_is_deleted() {
    let cluster = Cluster::start().await;
    let orders = Origin::text("orders").await;
    cluster.put_service("orders", &orders);
    let gateway = cluster.gateway().await;
    until_status(&gateway, "shop.example", "/", 404).await;
    until_status(&gateway, "shop.example", "/readyz", 200).await;
    assert_eq!(get(&gateway, "shop.example", "/orders/").await.status, 404);

    cluster.put_route("orders", &["shop.example"], &to("orders"));
    until_text(&gateway, "shop.example", "/x", "orders").await;
    assert_eq!(get(&gateway, "other.example", "/x").await.status, 404);
    let listed = get(&gateway, "localhost", "/internal/routes").await.json();
    let route = &listed["routes"][0];
    assert_eq!(route["source"], "HTTPRoute shop/orders");
    assert_eq!(route["hosts"], json!(["shop.example"]));
    assert_eq!(listed["http_routes"]["stale"], false);
    cluster
        .until_condition("orders", "Accepted", "True", "Accepted")
        .await;
    let front = cluster
        .server
        .get("gateways", "shop", "front")
        .expect("a Gateway");
    assert_eq!(front["status"]["conditions"][1]["type"], "Programmed");
    until("one attached route", async || {
        let front = cluster
            .server
            .get("gateways", "shop", "front")
            .unwrap_or_default();
        front["status"]["listeners"][0]["attachedRoutes"] == 1
    })
    .await;

    cluster.server.delete("httproutes", "shop", "orders");
    until_status(&gateway, "shop.example", "/x", 404).await;
}

#[tokio::test]
async fn the_most_specific_match_decides() {
    let cluster = Cluster::start().await;
    let gateway = cluster.gateway().await;
    let mut origins = Vec::new();
    for name in [
        "exact", "long", "short", "regex", "post", "header", "query", "host",
    ] {
        let origin = Origin::text(name).await;
        cluster.put_service(name, &origin);
        origins.push(origin);
    }
    let rule = |service: &str, matches: Value| json!({ "matches": [matches], "backendRefs": [{ "name": service, "port": 80 }] });
    let path = |kind: &str, value: &str| json!({ "type": kind, "value": value });
    let rules = json!([
        rule("short", json!({ "path": path("PathPrefix", "/a") })),
        rule(
            "post",
            json!({ "path": path("PathPrefix", "/a"), "method": "POST" })
        ),
        rule(
            "header",
            json!({ "path": path("PathPrefix", "/a"), "headers": [
            { "name": "X-Beta", "type": "RegularExpression", "value": "1|2" } ] })
        ),
        rule(
            "query",
            json!({ "path": path("PathPrefix", "/a"), "queryParams": [
            { "name": "beta", "value": "a b" } ] })
        ),
        rule("long", json!({ "path": path("PathPrefix", "/a/b") })),
        rule("exact", json!({ "path": path("Exact", "/a/b/c") })),
        rule(
            "regex",
            json!({ "path": path("RegularExpression", "/users/[0-9]+") })
        ),
    ]);
    cluster.put_route("any", &["*.example"], &rules);
    cluster.put_route("host", &["one.example"], &to("host"));
    until_text(&gateway, "one.example", "/a/b/c", "host").await;
    for (path, expected) in [
        ("/a/b/c", "exact"),
        ("/a/b/c/d", "long"),
        ("/a/x", "short"),
        ("/a/x?beta=a+b", "query"),
        ("/users/7", "regex"),
    ] {
        let found = get(&gateway, "two.example", path).await;
        assert_eq!(found.text(), expected, "{path}");
    }
    for path in ["/users/7/x", "/ab", "/"] {
        let found = get(&gateway, "two.example", path).await;
        assert_eq!(found.status, 404, "{path}");
    }
    let url = || gateway.url("/a/x");
    let beta = Request::get(url())
        .header("host", "two.example")
        .header("x-beta", "2");
    assert_eq!(gateway.send(beta).await.text(), "header");
    let post = Request::post(url())
        .header("host", "two.example")
        .header("x-beta", "2");
    assert_eq!(gateway.send(post).await.text(), "post");
}

#[tokio::test]
async fn filters_change_headers_hosts_and_paths() {
    let cluster = Cluster::start().await;
    let echo = echo().await;
    cluster.put_service("echo", &echo);
    let backend = json!([{ "name": "echo", "port": 80 }]);
    let rules = json!([
        {
            "matches": [{ "path": { "value": "/api" } }],
            "filters": [
                { "type": "RequestHeaderModifier", "requestHeaderModifier": {
                    "set": [{ "name": "X-Team", "value": "orders" }], "remove": ["X-Debug"] } },
                { "type": "ResponseHeaderModifier", "responseHeaderModifier": {
                    "add": [{ "name": "X-Served-By", "value": "waypost" }] } },
                { "type": "URLRewrite", "urlRewrite": { "hostname": "inner.example",
                    "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/v2" } } },
            ],
            "backendRefs": backend,
        },
        {
            "matches": [{ "path": { "value": "/old" } }],
            "filters": [{ "type": "RequestRedirect", "requestRedirect": {
                "scheme": "https", "statusCode": 301,
                "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" } } }],
        },
    ]);
    cluster.put_route("echo", &["shop.example"], &rules);
    let gateway = cluster.gateway().await;
    until_status(&gateway, "shop.example", "/api", 200).await;
    let request = Request::get(gateway.url("/api/x?y=1"))
        .header("host", "shop.example")
        .header("x-debug", "1");
    let response = gateway.send(request).await;
    assert_eq!(
        response.text(),
        "/v2/x?y=1 host=inner.example team=orders debug=-"
    );
    assert_eq!(response.header("x-served-by"), "waypost");
    let response = get(&gateway, "shop.example", "/old/x?y=1").await;
    assert_eq!(response.status, 301);
    assert_eq!(
        response.header("location"),
        "https://shop.example/new/x?y=1"
    );
}

#[tokio::test]
async fn weights_share_the_requests_and_an_unresolved_share_fails() {
    let cluster = Cluster::start().await;
    let (old, new) = (Origin::text("old").await, Origin::text("new").await);
    cluster.put_service("old", &old);
    cluster.put_service("new", &new);
    let rules = json!([{ "backendRefs": [
        { "name": "old", "port": 80, "weight": 2 },
        { "name": "new", "port": 80, "weight": 1 },
        { "name": "gone", "port": 80, "weight": 1 },
        { "name": "old", "port": 80, "weight": 0 },
    ] }]);
    cluster.put_route("split", &[], &rules);
    let gateway = cluster.gateway().await;
    cluster
        .until_condition("split", "ResolvedRefs", "False", "BackendNotFound")
        .await;
    until_text(&gateway, "a", "/", "old").await;
    let (mut counts, total) = ([0; 3], 400);
    for _ in 0..total {
        let response = get(&gateway, "a", "/").await;
        match (response.status.as_u16(), &*response.body) {
            (200, b"old") => counts[0] += 1,
            (200, b"new") => counts[1] += 1,
            (500, _) => {
                assert_eq!(response.json()["reason"], "backend_not_resolved");
                counts[2] += 1;
            }
            _ => panic!("{response:?}"),
        }
    }
    // Twelve standard deviations from 200, 100 and 100.
    assert!(
        counts[0] > 80 && counts[1] > 10 && counts[2] > 10,
        "{counts:?}"
    );
    // The missing Service appears: nothing fails any more.
    cluster.put_service("gone", &new);
    cluster
        .until_condition("split", "ResolvedRefs", "True", "ResolvedRefs")
        .await;
    for _ in 0..40 {
        assert_eq!(get(&gateway, "a", "/").await.status, 200);
    }
}

#[tokio::test]
async fn an_unresolved_share_fails_beside_a_single_backend_too() {
    let cluster = Cluster::start().await;
    cluster.put_service("web", &Origin::text("web").await);
    let rules = json!([{ "backendRefs": [
        { "name": "web", "port": 80, "weight": 1 },
        { "name": "gone", "port": 80, "weight": 1 },
    ] }]);
    cluster.put_route("half", &[], &rules);
    let gateway = cluster.gateway().await;
    cluster
        .until_condition("half", "ResolvedRefs", "False", "BackendNotFound")
        .await;
    until_text(&gateway, "a", "/", "web").await;
    let mut statuses = BTreeSet::new();
    for _ in 0..100 {
        statuses.insert(get(&gateway, "a", "/").await.status.as_u16());
    }
    assert_eq!(statuses, BTreeSet::from([200, 500]));
}

#[tokio::test]
async fn an_outage_leaves_the_last_routes_and_says_how_old_they_are() {
    let (logs, _guard) = Logs::take();
    let cluster = Cluster::start().await;
    let orders = Origin::text("orders").await;
    cluster.put_service("orders", &orders);
    cluster.put_route("orders", &[], &to("orders"));
    let gateway = cluster.gateway().await;
    until_text(&gateway, "a", "/", "orders").await;
    cluster.server.kill().await;
    until("the outage to show", async || {
        let shown = get(&gateway, "localhost", "/internal/routes").await.json();
        shown["http_routes"]["stale"] == true && shown["http_routes"]["age_seconds"].is_number()
    })
    .await;
    assert_eq!(get(&gateway, "a", "/").await.text(), "orders");
    assert!(
        !logs
            .lines(&["WARN", "HTTPRoutes may be outdated"])
            .is_empty()
    );
    assert_eq!(logs.lines(&["INFO", "watching HTTPRoutes"]).len(), 0);
    cluster.server.restart().await.expect("the server");
    let pay = Origin::text("pay").await;
    cluster.put_service("pay", &pay);
    cluster.put_route("pay", &["pay.example"], &to("pay"));
    until_text(&gateway, "pay.example", "/", "pay").await;
    until("the end of the outage to be logged", async || {
        !logs.lines(&["INFO", "watching HTTPRoutes"]).is_empty()
    })
    .await;
}

#[tokio::test]
async fn why_the_class_serves_no_route_is_logged_once() {
    let (logs, _guard) = Logs::take();
    let cluster = Cluster::start().await;
    let class = |controller: &str| {
        cluster.server.put(&json!({
            "apiVersion": API, "kind": "GatewayClass", "metadata": { "name": "other" },
            "spec": { "controllerName": controller },
        }));
    };
    let provider = cluster.provider();
    let _gateway = cluster
        .gateway_with(|config| config.gateway_api = Some(GatewayApi::new(provider, "other")))
        .await;
    let count = |text: &str| logs.lines(&["WARN", text, "no HTTPRoute is in use"]).len();
    let [missing, wrong] = [
        "there is no GatewayClass other",
        "controllerName \"x.dev/other\"",
    ];
    until(missing, async || count(missing) > 0).await;
    class("x.dev/other");
    until(wrong, async || count(wrong) > 0).await;
    class("waypost.dev/gateway");
    until("the class to be accepted", async || {
        let object = cluster.server.get("gatewayclasses", "", "other");
        let conditions = object.unwrap_or_default()["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        (conditions.iter()).any(|it| it["type"] == "Accepted" && it["status"] == "True")
    })
    .await;
    assert_eq!((count(missing), count(wrong), count("")), (1, 1, 2));
}

#[tokio::test]
async fn what_was_deleted_while_the_gateway_was_down_is_not_used_from_its_snapshot() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (services, routes) = (folder.path().join("services"), folder.path().join("routes"));
    let origin = Origin::text("hello").await;
    for name in ["kept", "gone", "lost"] {
        cluster.put_service(name, &origin);
        cluster.put_route(name, &[&format!("{name}.example")], &to(name));
    }
    let start = async || snapshotting(&cluster, services.clone(), routes.clone(), |_| ()).await;
    let first = start().await;
    for host in ["kept.example", "gone.example", "lost.example"] {
        until_text(&first, host, "/", "hello").await;
    }
    until("the snapshot", async || routes.exists()).await;
    drop(first);
    cluster.server.delete("httproutes", "shop", "gone");
    cluster.server.delete("services", "shop", "lost");
    let second = start().await;
    until_status(&second, "gone.example", "/", 404).await;
    until_status(&second, "lost.example", "/", 500).await;
    until_text(&second, "kept.example", "/", "hello").await;
    drop(second);
    cluster.server.delete("gateways", "shop", "front");
    let third = start().await;
    until_status(&third, "kept.example", "/", 404).await;
}

#[tokio::test]
async fn a_gateway_that_starts_during_an_outage_uses_its_snapshot() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (services, routes) = (folder.path().join("services"), folder.path().join("routes"));
    let orders = Origin::text("orders").await;
    cluster.put_service("orders", &orders);
    cluster.put_route("orders", &[], &to("orders"));
    let first = snapshotting(&cluster, services.clone(), routes.clone(), |_| ()).await;
    until_text(&first, "a", "/", "orders").await;
    until("the snapshots", async || {
        let text = std::fs::read_to_string(&services).unwrap_or_default();
        routes.exists() && text.contains("orders")
    })
    .await;
    drop(first);
    cluster.server.kill().await;
    let second = snapshotting(&cluster, services, routes, |_| ()).await;
    until_text(&second, "a", "/", "orders").await;
    assert_eq!(get(&second, "a", "/readyz").await.status, 200);
}

pub(crate) async fn snapshotting(
    cluster: &Cluster,
    services: PathBuf,
    routes: PathBuf,
    edit: impl FnOnce(&mut GatewayApi),
) -> TestGateway {
    let provider = cluster.provider();
    let mut options = DirectoryOptions::default();
    options.snapshot_file = Some(services);
    let client = ServiceDiscoveryClient::builder()
        .provider(provider.clone())
        .directory_options(options)
        .build()
        .expect("a client");
    let edit = |config: &mut Config| {
        if let Some(api) = &mut config.gateway_api {
            api.snapshot_file = Some(routes);
            edit(api);
        }
    };
    cluster.gateway_on(client, provider, edit).await
}

#[tokio::test]
async fn without_the_custom_resources_the_gateway_is_ready_and_asks_again() {
    let cluster = Cluster::start().await;
    let orders = Origin::text("orders").await;
    cluster.put_service("orders", &orders);
    cluster.put_route("orders", &["shop.example"], &to("orders"));
    cluster.server.faults().uninstall_gateway_api(true);
    let gateway = cluster
        .gateway_with(|config| config.discovered_routes = true)
        .await;
    until_text(&gateway, "a", "/orders/", "orders").await;
    until_status(&gateway, "a", "/readyz", 200).await;
    let shown = get(&gateway, "localhost", "/internal/routes").await.json();
    let error = shown["http_routes"]["error"].to_string();
    assert!(error.contains("CustomResourceDefinition"), "{error}");
    cluster.server.faults().uninstall_gateway_api(false);
    until_text(&gateway, "shop.example", "/", "orders").await;
}

#[tokio::test]
async fn a_missing_permission_is_named_and_the_documented_role_is_enough() {
    let cluster = Cluster::start().await;
    cluster.server.add_user("gateway");
    cluster
        .server
        .grant("gateway", "shop", &manifest::read_rules(&["list", "watch"]));
    let kubeconfig = cluster
        .server
        .kubeconfig_of("gateway")
        .expect("a kubeconfig");
    let builder = KubernetesProvider::builder().kubeconfig(kubeconfig);
    let provider = builder.build().expect("a provider");
    let client = ServiceDiscoveryClient::new(Arc::new(provider.clone()));
    let gateway = cluster.gateway_on(client, provider, |_| ()).await;
    until("the error", async || {
        let shown = get(&gateway, "localhost", "/internal/routes").await.json();
        let error = shown["http_routes"]["error"].to_string();
        error.contains("cannot list resource") || error.contains("cannot watch resource")
    })
    .await;
    let response = get(&gateway, "a", "/").await;
    assert_eq!(response.status, 503);
    assert_eq!(response.json()["reason"], "routes_unknown");
    assert_eq!(get(&gateway, "a", "/readyz").await.status, 503);

    // The documented ClusterRole is enough for the routes and for their status.
    let orders = Origin::text("orders").await;
    cluster.put_service("orders", &orders);
    cluster.put_route("orders", &["shop.example"], &to("orders"));
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/kubernetes/gateway-api"
    );
    let text = std::fs::read_to_string(format!("{folder}/class-and-role.yaml")).expect("a file");
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
    let role = documents
        .iter()
        .find(|it| it["kind"] == "ClusterRole")
        .expect("a role");
    cluster.server.grant("gateway", "", &role["rules"]);
    until_text(&gateway, "shop.example", "/", "orders").await;
    cluster
        .until_condition("orders", "Accepted", "True", "Accepted")
        .await;
}

#[tokio::test]
async fn external_names_and_loopback_addresses_are_refused_in_a_cluster() {
    let cluster = Cluster::start().await;
    let orders = Origin::text("orders").await;
    cluster.put_service("orders", &orders);
    let mut outside = manifest::service("shop", "outside", &[("http", 80)]);
    outside["spec"]["type"] = "ExternalName".into();
    outside["spec"]["externalName"] = "localhost".into();
    cluster.server.put(&outside);
    cluster.put_route("orders", &["orders.example"], &to("orders"));
    cluster.put_route("outside", &["outside.example"], &to("outside"));
    let gateway = cluster
        .gateway_with(|config| config.cluster_addresses_only = true)
        .await;
    let reason = "UnsupportedServiceType";
    cluster
        .until_condition("outside", "ResolvedRefs", "False", reason)
        .await;
    until_status(&gateway, "outside.example", "/", 500).await;
    // The endpoint of this Service is at 127.0.0.1.
    until_status(&gateway, "orders.example", "/", 502).await;
    assert_eq!(orders.requests(), 0);
}

#[tokio::test]
async fn two_gateways_agree_on_the_status_and_write_it_once() {
    let cluster = Cluster::start().await;
    let orders = Origin::text("orders").await;
    cluster.put_service("orders", &orders);
    let (one, two) = (cluster.gateway().await, cluster.gateway().await);
    cluster.put_route("orders", &[], &to("orders"));
    until_text(&one, "a", "/", "orders").await;
    until_text(&two, "a", "/", "orders").await;
    cluster
        .until_condition("orders", "Accepted", "True", "Accepted")
        .await;
    // Counted again once a later change has reached both gateways, which have then written all earlier changes.
    let patches = || {
        let requests = cluster.server.requests();
        let patches = requests.into_iter().filter(|it| it.verb == "patch");
        patches
            .filter(|it| it.resource == "httproutes/status" && it.code == Some(200))
            .count()
    };
    let first = patches();
    assert!(first >= 1);
    let pay = Origin::text("pay").await;
    cluster.put_service("pay", &pay);
    cluster.put_route("pay", &["pay.example"], &to("pay"));
    until_text(&one, "pay.example", "/", "pay").await;
    until_text(&two, "pay.example", "/", "pay").await;
    cluster
        .until_condition("pay", "Accepted", "True", "Accepted")
        .await;
    assert_eq!(
        patches(),
        first + 1,
        "one for the new route, none for the old one"
    );
}

#[tokio::test]
async fn a_request_mirror_sends_copies_to_another_service() {
    let cluster = Cluster::start().await;
    let (orders, shadow) = (Origin::text("orders").await, Origin::text("shadow").await);
    cluster.put_service("orders", &orders);
    cluster.put_service("shadow", &shadow);
    let rule = |path: &str, share: Value| {
        let mut mirror = json!({ "backendRef": { "name": "shadow", "port": 80 } });
        if let (Some(mirror), Value::Object(share)) = (mirror.as_object_mut(), share) {
            mirror.extend(share);
        }
        json!({
            "matches": [{ "path": { "value": path } }],
            "filters": [{ "type": "RequestMirror", "requestMirror": mirror }],
            "backendRefs": [{ "name": "orders", "port": 80 }],
        })
    };
    let rules = json!([
        rule("/all", json!({})),
        rule("/none", json!({ "percent": 0 })),
        rule(
            "/half",
            json!({ "fraction": { "numerator": 5, "denominator": 10 } })
        ),
    ]);
    cluster.put_route("orders", &["shop.example"], &rules);
    let gateway = cluster.gateway().await;
    until_text(&gateway, "shop.example", "/none", "orders").await;
    for _ in 0..100 {
        assert_eq!(
            get(&gateway, "shop.example", "/half").await.text(),
            "orders"
        );
    }
    // Ten standard deviations from 50. Copies may still be in progress, so their number is at most that.
    until("copies of the half", async || shadow.requests() >= 1).await;
    let half = shadow.requests();
    assert!(half < 100, "{half}");
    // A mirrored service that is gone doesn't affect the requests.
    for number in 1..=3 {
        assert_eq!(get(&gateway, "shop.example", "/all").await.text(), "orders");
        until("the copy", async || shadow.requests() >= half + number).await;
    }
    cluster.server.delete("services", "shop", "shadow");
    cluster
        .until_condition("orders", "ResolvedRefs", "False", "BackendNotFound")
        .await;
    until_status(&gateway, "shop.example", "/all", 200).await;
}

#[tokio::test]
async fn the_timeouts_of_a_rule_end_its_requests_only() {
    let cluster = Cluster::start().await;
    let gate = Arc::new(Semaphore::new(0));
    let waiting = Arc::clone(&gate);
    let slow = Origin::start(move |_| {
        let gate = Arc::clone(&waiting);
        async move {
            gate.acquire().await.expect("open").forget();
            Response::new(body("done"))
        }
    })
    .await;
    cluster.put_service("slow", &slow);
    let rule = |path: &str, timeouts: Value| {
        json!({
            "matches": [{ "path": { "value": path } }],
            "timeouts": timeouts,
            "backendRefs": [{ "name": "slow", "port": 80 }],
        })
    };
    let rules = json!([
        rule("/request", json!({ "request": "200ms" })),
        rule(
            "/backend",
            json!({ "request": "10m", "backendRequest": "200ms" })
        ),
        rule("/unlimited", json!({ "request": "0s" })),
        rule("/wrong", json!({ "request": "200 ms" })),
    ]);
    cluster.put_route("slow", &["shop.example"], &rules);
    let gateway = cluster.gateway().await;
    until_status(&gateway, "shop.example", "/wrong", 500).await;
    cluster
        .until_condition("slow", "PartiallyInvalid", "True", "UnsupportedValue")
        .await;
    let unlimited = get(&gateway, "shop.example", "/unlimited");
    let limited = async {
        for path in ["/request", "/backend"] {
            let response = get(&gateway, "shop.example", path).await;
            assert_eq!(response.status, 504, "{path}");
            assert_eq!(response.json()["reason"], "response_timeout", "{path}");
        }
        gate.add_permits(1);
    };
    let (unlimited, ()) = tokio::join!(unlimited, limited);
    assert_eq!(unlimited.text(), "done");
}

#[tokio::test]
async fn a_backend_in_another_namespace_needs_a_reference_grant() {
    let cluster = Cluster::start().await;
    let billing = Origin::text("billing").await;
    cluster.put_service_in("pay", "billing", &billing);
    let rules = json!([{ "backendRefs": [{ "name": "billing", "namespace": "pay", "port": 80 }] }]);
    cluster.put_route("billing", &["shop.example"], &rules);
    let gateway = cluster.gateway().await;
    let denied = || cluster.until_condition("billing", "ResolvedRefs", "False", "RefNotPermitted");
    denied().await;
    until_status(&gateway, "shop.example", "/", 500).await;
    assert_eq!(billing.requests(), 0);

    cluster.server.put(&json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": { "namespace": "pay", "name": "shop" },
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop" }],
            "to": [{ "group": "", "kind": "Service", "name": "billing" }],
        },
    }));
    until_text(&gateway, "shop.example", "/", "billing").await;
    cluster
        .until_condition("billing", "ResolvedRefs", "True", "ResolvedRefs")
        .await;

    cluster.server.delete("referencegrants", "pay", "shop");
    denied().await;
    until_status(&gateway, "shop.example", "/", 500).await;
}
