//! HTTPS listeners of the Gateway API, with certificates from Secrets of a fake API server and real TLS clients.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use waypost::ServiceDiscoveryClient;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost_fake_kubernetes::manifest;
use waypost_gateway::GatewayApi;

use crate::client_tls::connect;
use crate::http_routes::{API, Cluster, snapshotting, to, until};
use crate::support::{Body, Origin, TestGateway, body};

/// How often Secrets are read in these tests.
const INTERVAL: Duration = Duration::from_millis(50);

/// A server's certificate and its key, as PEM.
struct Issued {
    certificate: String,
    key: String,
}

fn issue(name: &str) -> Issued {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    Issued {
        certificate: pair.cert.pem(),
        key: pair.signing_key.serialize_pem(),
    }
}

impl Issued {
    fn secret(&self, namespace: &str, name: &str) -> Value {
        manifest::tls_secret(namespace, name, &self.certificate, &self.key)
    }
}

/// An HTTPS listener that names a Secret.
fn listener(hostname: &str, secret: &Value) -> Value {
    json!({
        "name": hostname.replace('.', "-"), "hostname": hostname, "port": 443, "protocol": "HTTPS",
        "tls": { "certificateRefs": [secret] },
    })
}

/// Replaces the listeners of the Gateway `front`.
fn put_listeners(cluster: &Cluster, listeners: &[Value]) {
    cluster.server.put(&json!({
        "apiVersion": API, "kind": "Gateway",
        "metadata": { "namespace": "shop", "name": "front" },
        "spec": { "gatewayClassName": "waypost", "listeners": listeners },
    }));
}

fn serve_tls(api: &mut GatewayApi) {
    api.tls = true;
    api.port = 443;
    api.secret_interval = INTERVAL;
}

/// A cluster with one service, to which requests for all hosts are routed.
async fn cluster() -> (Cluster, Origin) {
    let (cluster, origin) = (Cluster::start().await, Origin::text("orders").await);
    cluster.put_service("orders", &origin);
    cluster.put_route("orders", &[], &to("orders"));
    (cluster, origin)
}

async fn gateway(cluster: &Cluster) -> TestGateway {
    gateway_of(cluster, cluster.provider()).await
}

async fn gateway_of(cluster: &Cluster, provider: KubernetesProvider) -> TestGateway {
    let client = ServiceDiscoveryClient::new(std::sync::Arc::new(provider.clone()));
    let edit = |config: &mut waypost_gateway::Config| {
        if let Some(api) = &mut config.gateway_api {
            serve_tls(api);
        }
    };
    cluster.gateway_on(client, provider, edit).await
}

/// Whether a client that requests a name and trusts only this certificate can connect.
async fn is_served(gateway: &TestGateway, name: &str, issued: &Issued) -> bool {
    connect(gateway, name, &issued.certificate, &[])
        .await
        .is_ok()
}

async fn until_served(gateway: &TestGateway, name: &str, issued: &Issued) {
    until(&format!("the certificate of {name}"), async || {
        is_served(gateway, name, issued).await
    })
    .await;
}

/// Opens a connection for requests to a name.
async fn open(gateway: &TestGateway, name: &str, issued: &Issued) -> http1::SendRequest<Body> {
    let stream = connect(gateway, name, &issued.certificate, &["http/1.1"]);
    let stream = TokioIo::new(stream.await.expect("a handshake"));
    let (sender, connection) = http1::handshake(stream).await.expect("HTTP/1.1");
    tokio::spawn(connection);
    sender
}

/// The text of a response, which is from the service or an error of the gateway.
async fn text(connection: &mut http1::SendRequest<Body>, name: &str) -> String {
    let request = Request::get("/").header("host", name).body(body(""));
    let response = connection.send_request(request.expect("a request"));
    let body = response.await.expect("a response").into_body();
    let bytes = body.collect().await.expect("a body").to_bytes();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The condition of a listener, as `status reason: message`.
fn condition(cluster: &Cluster, listener: &str, kind: &str) -> String {
    let gateway = cluster.server.get("gateways", "shop", "front");
    let listeners = gateway.unwrap_or_default()["status"]["listeners"].clone();
    let find = |list: &Value, field: &str, value: &str| {
        let mut items = list.as_array().into_iter().flatten();
        items.find(|it| it[field] == value).cloned()
    };
    let listener = find(&listeners, "name", &listener.replace('.', "-"));
    let found = find(&listener.unwrap_or_default()["conditions"], "type", kind);
    let found = found.unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    let [status, reason, message] = ["status", "reason", "message"].map(text);
    format!("{status} {reason}: {message}")
}

async fn until_condition(cluster: &Cluster, listener: &str, kind: &str, expected: &str) {
    let mut last = String::new();
    until(&format!("{kind} of {listener}: {expected}"), async || {
        let now = condition(cluster, listener, kind);
        if now != last {
            eprintln!("{kind} of {listener}: {now}");
            last.clone_from(&now);
        }
        now.contains(expected)
    })
    .await;
}

const SERVED: &str = "True Programmed";
const RESOLVED: &str = "True ResolvedRefs";

#[tokio::test]
async fn each_listener_has_the_certificate_of_its_secret_and_unknown_names_get_none() {
    let (cluster, _origin) = cluster().await;
    let (shop, pay, wildcard) = (
        issue("shop.example"),
        issue("pay.example"),
        issue("*.pay.example"),
    );
    cluster.server.put(&shop.secret("shop", "shop-tls"));
    cluster.server.put(&pay.secret("shop", "pay-tls"));
    cluster.server.put(&wildcard.secret("shop", "wildcard-tls"));
    put_listeners(
        &cluster,
        &[
            listener("shop.example", &json!({ "name": "shop-tls" })),
            listener("pay.example", &json!({ "name": "pay-tls" })),
            listener("*.pay.example", &json!({ "name": "wildcard-tls" })),
        ],
    );
    let gateway = gateway(&cluster).await;
    for (name, issued) in [
        ("shop.example", &shop),
        ("pay.example", &pay),
        ("api.pay.example", &wildcard),
    ] {
        until_served(&gateway, name, issued).await;
        until_condition(&cluster, "shop.example", "Programmed", SERVED).await;
        let mut connection = open(&gateway, name, issued).await;
        assert_eq!(text(&mut connection, name).await, "orders");
    }
    for issued in [&shop, &pay, &wildcard] {
        assert!(!is_served(&gateway, "other.example", issued).await);
    }
    let requests = cluster.server.requests();
    let of_secrets = requests.iter().filter(|it| it.resource == "secrets");
    assert!(of_secrets.clone().count() > 0);
    assert!(of_secrets.into_iter().all(|it| it.verb == "get"));
}

#[tokio::test]
async fn a_renewed_secret_is_used_without_a_restart_and_open_connections_go_on() {
    let (cluster, _origin) = cluster().await;
    let old = issue("shop.example");
    cluster.server.put(&old.secret("shop", "shop-tls"));
    put_listeners(
        &cluster,
        &[listener("shop.example", &json!({ "name": "shop-tls" }))],
    );
    let gateway = gateway(&cluster).await;
    until_served(&gateway, "shop.example", &old).await;
    let mut connection = open(&gateway, "shop.example", &old).await;
    assert_eq!(text(&mut connection, "shop.example").await, "orders");
    let new = issue("shop.example");
    cluster.server.put(&new.secret("shop", "shop-tls"));
    until_served(&gateway, "shop.example", &new).await;
    assert!(!is_served(&gateway, "shop.example", &old).await);
    assert_eq!(text(&mut connection, "shop.example").await, "orders");
}

#[tokio::test]
async fn a_listener_says_what_is_wrong_with_its_secret_and_others_are_served() {
    let (cluster, _origin) = cluster().await;
    let (shop, other) = (issue("shop.example"), issue("pay.example"));
    cluster.server.put(&shop.secret("shop", "shop-tls"));
    let shop_listener = listener("shop.example", &json!({ "name": "shop-tls" }));
    let pay_listener = listener("pay.example", &json!({ "name": "pay-tls" }));
    put_listeners(&cluster, &[shop_listener, pay_listener]);
    let gateway = gateway(&cluster).await;
    let pay = "pay.example";
    until_condition(
        &cluster,
        pay,
        "ResolvedRefs",
        "False InvalidCertificateRef: Secret shop/pay-tls was not found",
    )
    .await;
    until_condition(&cluster, pay, "Programmed", "False Invalid").await;
    until_served(&gateway, "shop.example", &shop).await;
    until_condition(&cluster, "shop.example", "Programmed", SERVED).await;

    let mut opaque = other.secret("shop", "pay-tls");
    opaque["type"] = "Opaque".into();
    cluster.server.put(&opaque);
    until_condition(&cluster, pay, "ResolvedRefs", "is of type \"Opaque\"").await;

    cluster.server.delete("secrets", "shop", "pay-tls");
    let in_one_line = Issued {
        certificate: other.certificate.clone(),
        key: other.key.replace('\n', ""),
    };
    cluster.server.put(&in_one_line.secret("shop", "pay-tls"));
    let expected = "Secret shop/pay-tls can't be used: tls.key: contains no private key";
    until_condition(&cluster, pay, "ResolvedRefs", expected).await;

    let wrong_key = Issued {
        certificate: other.certificate.clone(),
        key: shop.key.clone(),
    };
    cluster.server.put(&wrong_key.secret("shop", "pay-tls"));
    let expected = "tls.key: does not fit the certificate in tls.crt";
    until_condition(&cluster, pay, "ResolvedRefs", expected).await;
    assert!(!is_served(&gateway, pay, &shop).await);

    cluster.server.put(&other.secret("shop", "pay-tls"));
    until_served(&gateway, pay, &other).await;
    until_condition(&cluster, pay, "ResolvedRefs", RESOLVED).await;
    until_condition(&cluster, pay, "Programmed", SERVED).await;
    let mut connection = open(&gateway, pay, &other).await;
    assert_eq!(text(&mut connection, pay).await, "orders");
}

#[tokio::test]
async fn a_secret_of_another_namespace_needs_a_reference_grant() {
    let (cluster, _origin) = cluster().await;
    let issued = issue("pay.example");
    cluster.server.put(&issued.secret("pay", "pay-tls"));
    let reference = json!({ "name": "pay-tls", "namespace": "pay" });
    put_listeners(&cluster, &[listener("pay.example", &reference)]);
    let gateway = gateway(&cluster).await;
    let refused = "False RefNotPermitted: no ReferenceGrant in namespace pay allows Gateways of namespace shop \
                   to use Secret pay-tls";
    until_condition(&cluster, "pay.example", "ResolvedRefs", refused).await;
    assert!(!is_served(&gateway, "pay.example", &issued).await);
    let requests = cluster.server.requests();
    assert!(requests.iter().all(|it| it.resource != "secrets"));

    cluster.server.put(&json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": { "namespace": "pay", "name": "grant" },
        "spec": {
            "from": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop" }],
            "to": [{ "group": "", "kind": "Secret" }],
        },
    }));
    until_served(&gateway, "pay.example", &issued).await;
    until_condition(&cluster, "pay.example", "ResolvedRefs", RESOLVED).await;

    cluster.server.delete("referencegrants", "pay", "grant");
    until_condition(&cluster, "pay.example", "ResolvedRefs", refused).await;
    assert!(!is_served(&gateway, "pay.example", &issued).await);
}

#[tokio::test]
async fn the_last_valid_certificate_survives_an_outage_a_lost_permission_and_bad_content() {
    let (cluster, _origin) = cluster().await;
    let server = &cluster.server;
    server.add_user("gateway");
    let watched = json!([
        { "apiGroups": ["", "discovery.k8s.io", "gateway.networking.k8s.io"], "resources": [
            "services", "namespaces", "endpointslices", "gatewayclasses", "gateways", "httproutes",
            "referencegrants",
        ], "verbs": ["list", "watch"] },
        { "apiGroups": ["gateway.networking.k8s.io"], "resources": ["*"], "verbs": ["patch"] },
    ]);
    server.grant("gateway", "", &watched);
    let may_get = json!([{
        "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["shop-tls"], "verbs": ["get"],
    }]);
    server.grant("gateway", "shop", &may_get);
    let kubeconfig = server.kubeconfig_of("gateway").expect("a kubeconfig");
    let provider = KubernetesProvider::builder().kubeconfig(kubeconfig).build();
    let issued = issue("shop.example");
    let good = issued.secret("shop", "shop-tls");
    server.put(&good);
    let shop = "shop.example";
    put_listeners(&cluster, &[listener(shop, &json!({ "name": "shop-tls" }))]);
    let gateway = gateway_of(&cluster, provider.expect("a provider")).await;
    until_served(&gateway, shop, &issued).await;
    until_condition(&cluster, shop, "ResolvedRefs", RESOLVED).await;
    let kept = async |problem: &str| {
        until_condition(&cluster, shop, "ResolvedRefs", problem).await;
        let message = condition(&cluster, shop, "ResolvedRefs");
        assert!(message.starts_with("False InvalidCertificateRef: Secret shop/shop-tls "));
        assert!(
            message.ends_with("; its last valid certificate stays in use"),
            "{message}"
        );
        assert!(condition(&cluster, shop, "Programmed").starts_with(SERVED));
        assert!(is_served(&gateway, shop, &issued).await);
    };

    server.revoke("gateway", "shop");
    kept("cannot get resource").await;
    server.grant("gateway", "shop", &may_get);
    until_condition(&cluster, shop, "ResolvedRefs", RESOLVED).await;

    let wrong_key = Issued {
        certificate: issued.certificate.clone(),
        key: issue(shop).key,
    };
    server.put(&wrong_key.secret("shop", "shop-tls"));
    kept("does not fit the certificate").await;
    server.delete("secrets", "shop", "shop-tls");
    kept("was not found").await;
    server.put(&good);
    until_condition(&cluster, shop, "ResolvedRefs", RESOLVED).await;

    server.kill().await;
    until("the outage to be noticed", async || {
        let shown = gateway.get("/internal/routes").await.json();
        !shown["http_routes"]["error"].is_null()
    })
    .await;
    tokio::time::sleep(INTERVAL * 4).await;
    assert!(is_served(&gateway, shop, &issued).await);
    let renewed = issue(shop);
    server.put(&renewed.secret("shop", "shop-tls"));
    server.restart().await.expect("a restart");
    until_served(&gateway, shop, &renewed).await;
}

#[tokio::test]
async fn a_gateway_that_starts_during_an_outage_waits_for_its_certificate_and_no_file_has_the_key()
{
    let (cluster, _origin) = cluster().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (services, routes) = (folder.path().join("services"), folder.path().join("routes"));
    let issued = issue("shop.example");
    let secret = issued.secret("shop", "shop-tls");
    cluster.server.put(&secret);
    put_listeners(
        &cluster,
        &[listener("shop.example", &json!({ "name": "shop-tls" }))],
    );
    let start = async || snapshotting(&cluster, services.clone(), routes.clone(), serve_tls).await;
    let first = start().await;
    until_served(&first, "shop.example", &issued).await;
    until("the snapshots", async || {
        let text = std::fs::read_to_string(&services).unwrap_or_default();
        routes.exists() && text.contains("orders")
    })
    .await;
    let encoded = secret["data"]["tls.key"]
        .as_str()
        .expect("a key")
        .to_owned();
    let line = issued.key.lines().nth(1).expect("a line").to_owned();
    let shown = first.get("/internal/routes").await.text().to_owned();
    let mut texts = vec![shown];
    for file in std::fs::read_dir(folder.path()).expect("the folder") {
        let file = file.expect("a file").path();
        texts.push(std::fs::read_to_string(file).expect("a text"));
    }
    assert!(texts.iter().any(|text| text.contains("shop-tls")));
    for text in texts {
        assert!(!text.contains(&encoded) && !text.contains(&line), "{text}");
    }
    drop(first);

    cluster.server.kill().await;
    let second = start().await;
    until("the routes of the snapshot", async || {
        let shown = second.get("/internal/routes").await;
        shown.text().contains("HTTPRoute shop/orders")
    })
    .await;
    assert!(!is_served(&second, "shop.example", &issued).await);
    cluster.server.restart().await.expect("a restart");
    until_served(&second, "shop.example", &issued).await;
    let mut connection = open(&second, "shop.example", &issued).await;
    // No request was for the service, so its instances are not in the snapshot.
    until("the instances", async || {
        text(&mut connection, "shop.example").await == "orders"
    })
    .await;
}
