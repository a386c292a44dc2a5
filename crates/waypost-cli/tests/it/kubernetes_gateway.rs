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

#[tokio::test]
async fn a_gateway_serves_https_with_the_certificate_of_a_mounted_secret() {
    let server = ApiServer::builder().namespace("waypost").start();
    let server = server.await.unwrap();
    let read_objects = |file: &str| -> Vec<Value> {
        let text = read(&format!("deploy/kubernetes/gateway-api/{file}"));
        serde_saphyr::from_multiple(&text).unwrap()
    };
    let https = read_objects("https.yaml");
    let stored = [
        "GatewayClass",
        "Gateway",
        "ClusterRole",
        "ClusterRoleBinding",
    ];
    for object in read_objects("class-and-role.yaml").iter().chain(&https) {
        if stored.contains(&object["kind"].as_str().unwrap()) {
            server.put(object);
        }
    }
    let account = "system:serviceaccount:waypost:api-gateway";
    server.add_user(account);
    put(&server, "shop", "orders", upstream("an order").await);
    put(&server, "shop", "orders-next", upstream("an order").await);
    let mut route = read_objects("example.yaml").pop().unwrap();
    route["metadata"]["namespace"] = "shop".into();
    route["spec"]["parentRefs"] = json!([{ "name": "front-https", "namespace": "waypost" }]);
    server.put(&route);

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
    let [port] = free_ports();
    let mounted = container(&https)["volumeMounts"][0]["mountPath"]
        .as_str()
        .unwrap();
    let arguments = container(&https)["args"].as_array().unwrap().iter();
    let arguments = arguments.map(|argument| {
        let argument = argument.as_str().unwrap();
        let argument = argument.replace(mounted, folder.path().to_str().unwrap());
        let argument = argument.replace("0.0.0.0", "127.0.0.1");
        argument.replace("--port=8443", &format!("--port={port}"))
    });
    let mut command = waypost(&[]);
    command
        .args(arguments)
        // The endpoints of this test are loopback addresses.
        .args(["--allow-external-names", "--internal", "off"])
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes")
        .env("KUBECONFIG", server.kubeconfig_of(account).unwrap());
    let gateway = Program::start(command);

    let order = async |ca: &Ca| {
        let authority = fs::read(ca.certificate()).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(&authority).unwrap()])
            .resolve("shop.example", ([127, 0, 0, 1], port).into())
            .build()
            .unwrap();
        let url = format!("https://shop.example:{port}/orders/1");
        let response = client.get(url).send().await.ok()?;
        (response.text().await.ok()? == "an order").then_some(())
    };
    eventually("an order over TLS", async || order(&ca).await).await;
    eventually("the status of the Gateway", async || {
        let front = server.get("gateways", "waypost", "front-https")?;
        let conditions = front["status"]["listeners"][0]["conditions"].clone();
        let is_true = |kind: &str| {
            let mut conditions = conditions.as_array().into_iter().flatten();
            conditions.any(|it| it["type"] == kind && it["status"] == "True")
        };
        (is_true("Programmed") && is_true("ResolvedRefs")).then_some(())
    })
    .await;
    // The Secret is renewed.
    let renewed = Ca::new();
    mount(&renewed);
    eventually("an order with the new certificate", async || {
        order(&renewed).await
    })
    .await;
    stop(gateway).await;
}
