//! The gateway in front of the services of all namespaces of a cluster, with the permissions that the
//! documentation names.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_testkit::free_ports;

use crate::support::*;

/// The ClusterRole and its binding in `docs/kubernetes.md`.
fn documented_cluster_role() -> Vec<Value> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/kubernetes.md");
    let page = fs::read_to_string(page).unwrap();
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

    let [port] = free_ports();
    let mut command = waypost(&["gateway", "--port", &port.to_string(), "--internal", "off"]);
    command
        // The endpoints of this test are loopback addresses.
        .arg("--allow-external-names")
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes")
        .env("KUBERNETES_NAMESPACES", "*")
        .env("KUBECONFIG", server.kubeconfig_of(account).unwrap());
    let mut gateway = Program::start(command);
    let until = async |path: &str, expected: (u16, &str)| {
        let url = format!("http://127.0.0.1:{port}{path}");
        eventually(&format!("{path} is {expected:?}"), async || {
            let response = http().get(&url).send().await.ok()?;
            let status = response.status().as_u16();
            let body = response.text().await.ok()?;
            (status == expected.0 && body.contains(expected.1)).then_some(())
        })
        .await;
    };
    until("/web/", (200, "web of demo")).await;
    until("/web.shop/", (200, "web of shop")).await;

    put(&server, "new", "cart", upstream("cart of new").await);
    until("/cart.new/", (200, "cart of new")).await;
    server.delete("namespaces", "", "new");
    // As for any service with a route that has lost its last instance.
    until("/cart.new/", (503, "no_instances")).await;
    until("/web.shop/", (200, "web of shop")).await;
    gateway.interrupt();
    assert_eq!(
        gateway.wait_for_exit().await,
        Some(0),
        "{}",
        gateway.output()
    );
}
