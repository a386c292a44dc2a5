//! The gateway in front of the services of all namespaces of a cluster, and with routes from the Gateway API, with the
//! permissions that the documentation and the manifests name.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_testkit::{Ca, free_ports};

use crate::support::*;

fn read(path: &str) -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    fs::read_to_string(workspace.join(path)).unwrap()
}

/// The ClusterRole and its binding in `docs/kubernetes.md`.
fn documented_cluster_role() -> Vec<Value> {
    let page = read("docs/kubernetes.md");
    let mut blocks = page.split("```yaml\n").skip(1);
    let block = blocks.find(|block| block.contains("kind: ClusterRole\n"));
    let (block, _) = block.unwrap().split_once("```").unwrap();
    serde_saphyr::from_multiple(block).unwrap()
}

/// Starts a server that answers each request with `body`, and returns its port.
async fn upstream(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ = client.read(&mut [0; 4096]).await;
            let length = body.len();
            let response = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            let _ = client.write_all(response.as_bytes()).await;
        }
    });
    port
}

/// Creates a Service with one endpoint at this port.
fn put(server: &ApiServer, namespace: &str, name: &str, port: u16) {
    server.put(&manifest::service(namespace, name, &[("http", 80)]));
    let endpoint = [manifest::endpoint("127.0.0.1")];
    let (slice, ports) = (format!("{name}-1"), [("http", port)]);
    server.put(&manifest::slice(namespace, name, &slice, &ports, endpoint));
}

/// Starts a gateway that serves the services of a cluster, and returns its port.
fn gateway(server: &ApiServer, account: &str, namespaces: &str, args: &[&str]) -> (Program, u16) {
    let [port] = free_ports();
    let mut command = waypost(&["gateway", "--port", &port.to_string(), "--internal", "off"]);
    command
        // The endpoints of these tests are loopback addresses.
        .arg("--allow-external-names")
        .args(args)
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes")
        .env("KUBERNETES_NAMESPACES", namespaces)
        .env("KUBECONFIG", server.kubeconfig_of(account).unwrap());
    (Program::start(command), port)
}

/// The container of the only Deployment among these objects.
fn container(objects: &[Value]) -> &Value {
    let deployment = objects.iter().find(|it| it["kind"] == "Deployment");
    &deployment.unwrap()["spec"]["template"]["spec"]["containers"][0]
}

/// Waits until a request gets a response with this status and text.
async fn until(port: u16, host: &str, path: &str, expected: (u16, &str)) {
    let url = format!("http://127.0.0.1:{port}{path}");
    eventually(&format!("{host}{path} is {expected:?}"), async || {
        let response = http().get(&url).header("host", host).send().await.ok()?;
        let status = response.status().as_u16();
        let body = response.text().await.ok()?;
        (status == expected.0 && body.contains(expected.1)).then_some(())
    })
    .await;
}

async fn stop(mut gateway: Program) {
    gateway.interrupt();
    let code = gateway.wait_for_exit().await;
    assert_eq!(code, Some(0), "{}", gateway.output());
}

#[tokio::test]
async fn services_of_all_namespaces_have_routes_and_lose_their_instances_with_their_namespace() {
    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    for document in documented_cluster_role() {
        server.put(&document);
    }
    let account = "system:serviceaccount:demo:api-gateway";
    server.add_user(account);
    put(&server, "demo", "web", upstream("web of demo").await);
    put(&server, "shop", "web", upstream("web of shop").await);

    let (gateway, port) = gateway(&server, account, "*", &[]);
    let until = |path: &'static str, expected| until(port, "gateway.example", path, expected);
    until("/web/", (200, "web of demo")).await;
    until("/web.shop/", (200, "web of shop")).await;

    put(&server, "new", "cart", upstream("cart of new").await);
    until("/cart.new/", (200, "cart of new")).await;
    server.delete("namespaces", "", "new");
    // The same as for any service whose route remains after its last instance is gone.
    until("/cart.new/", (503, "no_instances")).await;
    until("/web.shop/", (200, "web of shop")).await;
    stop(gateway).await;
}

#[tokio::test]
async fn routes_come_from_the_gateway_api_with_the_objects_and_the_role_of_the_manifests() {
    let server = ApiServer::builder().namespace("waypost").start();
    let server = server.await.unwrap();
    let role = read("deploy/kubernetes/gateway-api/class-and-role.yaml");
    for document in serde_saphyr::from_multiple::<Value>(&role).unwrap() {
        server.put(&document);
    }
    let account = "system:serviceaccount:waypost:api-gateway";
    server.add_user(account);
    for name in ["orders", "orders-next"] {
        put(&server, "shop", name, upstream("an order").await);
    }
    let (gateway, port) = gateway(&server, account, "waypost", &["--gateway-class", "waypost"]);
    let example = read("deploy/kubernetes/gateway-api/example.yaml");
    for mut document in serde_saphyr::from_multiple::<Value>(&example).unwrap() {
        document["metadata"]["namespace"] = "shop".into();
        server.put(&document);
    }
    until(port, "shop.example", "/orders/1", (200, "an order")).await;
    until(port, "other.example", "/orders/1", (404, "")).await;

    let has_condition = |status: &Value, kind: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|it| it["type"] == kind && it["status"] == "True")
    };
    eventually("the status of the objects", async || {
        let front = server.get("gateways", "shop", "front")?;
        let orders = server.get("httproutes", "shop", "orders")?;
        let parent = &orders["status"]["parents"][0];
        let is_accepted =
            has_condition(parent, "Accepted") && has_condition(parent, "ResolvedRefs");
        (is_accepted && has_condition(&front["status"], "Programmed")).then_some(())
    })
    .await;

    server.delete("httproutes", "shop", "orders");
    until(port, "shop.example", "/orders/1", (404, "")).await;
    stop(gateway).await;
}

/// The objects of `https.yaml` and of the class in a fake API server, with a route of the Gateway for HTTPS.
struct HttpsCluster {
    server: ApiServer,
    manifests: Vec<Value>,
}

const ACCOUNT: &str = "system:serviceaccount:waypost:api-gateway";

impl HttpsCluster {
    async fn start() -> Self {
        let server = ApiServer::builder().namespace("waypost").start();
        let server = server.await.unwrap();
        let read_objects = |file: &str| -> Vec<Value> {
            let text = read(&format!("deploy/kubernetes/gateway-api/{file}"));
            serde_saphyr::from_multiple(&text).unwrap()
        };
        let manifests = read_objects("https.yaml");
        let stored = [
            "GatewayClass",
            "Gateway",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
        ];
        for object in read_objects("class-and-role.yaml").iter().chain(&manifests) {
            if stored.contains(&object["kind"].as_str().unwrap()) {
                server.put(object);
            }
        }
        server.add_user(ACCOUNT);
        put(&server, "shop", "orders", upstream("an order").await);
        put(&server, "shop", "orders-next", upstream("an order").await);
        let mut route = read_objects("example.yaml").pop().unwrap();
        route["metadata"]["namespace"] = "shop".into();
        route["spec"]["parentRefs"] = json!([{ "name": "front-https", "namespace": "waypost" }]);
        server.put(&route);
        Self { server, manifests }
    }

    /// Starts a gateway with the arguments of the Deployment and these instead of `--gateway-tls`.
    fn gateway(&self, tls: &[String]) -> (Program, u16) {
        let [port] = free_ports();
        let arguments = container(&self.manifests)["args"].as_array().unwrap();
        let arguments = arguments.iter().flat_map(|argument| {
            let argument = argument.as_str().unwrap();
            if argument == "--gateway-tls" {
                return tls.to_vec();
            }
            let argument = argument.replace("0.0.0.0", "127.0.0.1");
            vec![argument.replace("--port=8443", &format!("--port={port}"))]
        });
        let mut command = waypost(&[]);
        command
            .args(arguments)
            // The endpoints of these tests are loopback addresses.
            .args(["--allow-external-names", "--internal", "off"])
            .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes")
            .env("KUBECONFIG", self.server.kubeconfig_of(ACCOUNT).unwrap())
            .env("RUST_LOG", "trace");
        (Program::start(command), port)
    }

    async fn until_served(&self, port: u16, ca: &Ca) {
        eventually("an order over TLS", async || order(port, ca).await).await;
        eventually("the status of the Gateway", async || {
            let front = self.server.get("gateways", "waypost", "front-https")?;
            let conditions = front["status"]["listeners"][0]["conditions"].clone();
            let is_true = |kind: &str| {
                let mut conditions = conditions.as_array().into_iter().flatten();
                conditions.any(|it| it["type"] == kind && it["status"] == "True")
            };
            (is_true("Programmed") && is_true("ResolvedRefs")).then_some(())
        })
        .await;
    }
}

fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy()
}

/// Sends a request as a client that trusts only this authority.
async fn order(port: u16, ca: &Ca) -> Option<()> {
    let authority = fs::read(ca.certificate()).unwrap();
    let client = client()
        .tls_certs_only([reqwest::Certificate::from_pem(&authority).unwrap()])
        .resolve("shop.example", ([127, 0, 0, 1], port).into())
        .build()
        .unwrap();
    let url = format!("https://shop.example:{port}/orders/1");
    let response = client.get(url).send().await.ok()?;
    (response.text().await.ok()? == "an order").then_some(())
}

#[tokio::test]
async fn a_gateway_serves_https_with_the_secret_and_the_role_of_the_manifests() {
    let cluster = HttpsCluster::start().await;
    let (gateway, port) = cluster.gateway(&["--gateway-tls".to_owned()]);
    // As when cert-manager writes the Secret after the Gateway.
    let ca = Ca::new();
    let (certificate, key) = ca.issue("shop", &["shop.example"]);
    let [certificate, key] = [certificate, key].map(|file| fs::read_to_string(file).unwrap());
    let secret = manifest::tls_secret("waypost", "shop-tls", &certificate, &key);
    cluster.server.put(&secret);
    cluster.until_served(port, &ca).await;
    // A probe of the kubelet requests no name.
    let probe = format!("https://127.0.0.1:{port}/readyz");
    let client = client().tls_danger_accept_invalid_certs(true);
    let client = client.build().unwrap();
    assert_eq!(client.get(probe).send().await.unwrap().status(), 200);
    let log = gateway.output();
    assert!(log.contains("the certificate of Secret waypost/shop-tls is in use"));
    let encoded = secret["data"]["tls.key"].as_str().unwrap();
    for private in [encoded, key.lines().nth(1).unwrap()] {
        assert!(!log.contains(private), "the log shows the private key");
    }
    stop(gateway).await;
}

#[tokio::test]
async fn a_gateway_serves_https_with_the_certificate_of_a_mounted_secret() {
    let cluster = HttpsCluster::start().await;
    let manifests = cluster.manifests.iter();
    let mut gateway = manifests.filter(|it| it["kind"] == "Gateway").cloned();
    let mut gateway = gateway.next().unwrap();
    gateway["spec"]["listeners"][0]["tls"] =
        json!({ "options": { "waypost.dev/certificates": "files" } });
    cluster.server.put(&gateway);

    // The files as the kubelet mounts them.
    let folder = tempfile::tempdir().unwrap();
    let mount = |ca: &Ca| {
        let (certificate, key) = ca.issue("shop", &["shop.example"]);
        for (from, to) in [(certificate, "tls.crt"), (key, "tls.key")] {
            let new = folder.path().join("new");
            fs::copy(from, &new).unwrap();
            fs::rename(new, folder.path().join(to)).unwrap();
        }
    };
    let ca = Ca::new();
    mount(&ca);
    let files = [("cert", "tls.crt"), ("key", "tls.key")];
    let files = files
        .map(|(option, file)| format!("--tls-{option}={}", folder.path().join(file).display()));
    let (gateway, port) = cluster.gateway(&files);
    cluster.until_served(port, &ca).await;
    // The Secret is renewed.
    let renewed = Ca::new();
    mount(&renewed);
    eventually("an order with the new certificate", async || {
        order(port, &renewed).await
    })
    .await;
    stop(gateway).await;
}
