//! The Kubernetes pair of the examples: its manifests fit together, and the program runs with the permissions that
//! they give it.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use waypost_fake_kubernetes::{ApiServer, manifest};
use waypost_testkit::free_ports;

use super::manifests::{Document, deploy, parse};
use crate::support::*;

const NAMESPACE: &str = "demo";

/// The documents of a manifest among the examples.
fn manifests(name: &str) -> Vec<Value> {
    let path = deploy("../examples/kubernetes").join(name);
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

/// An example that `cargo test` has built.
fn example(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_waypost"));
    let program = program.with_file_name("examples").join(name);
    assert!(
        program.is_file(),
        "{} is missing: cargo build -p waypost --all-features --examples",
        program.display()
    );
    program
}

#[test]
fn the_manifests_of_the_examples_match_their_types_and_their_pods() {
    for name in ["hello.yaml", "greeting.yaml"] {
        let manifests = manifests(name);
        let is_known = |it: &&Value| it["kind"] != "ConfigMap";
        for document in manifests.iter().filter(is_known) {
            parse(document).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let kind = |kind: &str| manifests.iter().find(|it| it["kind"] == kind).unwrap();
        let labels = &kind("Deployment")["spec"]["template"]["metadata"]["labels"];
        for (key, value) in kind("Service")["spec"]["selector"].as_object().unwrap() {
            assert_eq!(&labels[key], value, "{name}");
        }
    }
    let parsed = manifests("hello.yaml")
        .iter()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let binding = parsed.iter().find_map(|it| match it {
        Document::RoleBinding(binding) => Some(binding),
        _ => None,
    });
    let RoleBinding {
        role_ref, subjects, ..
    } = binding.unwrap();
    assert_eq!(role_ref.name, "service-discovery");
    assert_eq!(subjects.as_ref().unwrap()[0].name, "hello");
}

#[tokio::test]
async fn the_example_for_kubernetes_runs_with_the_permissions_of_its_manifest() {
    let server = ApiServer::builder()
        .namespace(NAMESPACE)
        .start()
        .await
        .unwrap();
    let greeting = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let greeting_port = greeting.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = greeting.accept().await {
            let response =
                b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";
            let _ = client.read(&mut [0; 1024]).await;
            let _ = client.write_all(response).await;
        }
    });
    for mut object in manifests("hello.yaml")
        .into_iter()
        .chain(manifests("greeting.yaml"))
    {
        let kind = object["kind"].as_str().unwrap();
        if ["Role", "RoleBinding", "Service"].contains(&kind) {
            object["metadata"]["namespace"] = NAMESPACE.into();
            for subject in object["subjects"].as_array_mut().into_iter().flatten() {
                subject["namespace"] = NAMESPACE.into();
            }
            server.put(&object);
        }
    }
    let endpoint = manifest::pod("127.0.0.1", "greeting-x", "node", "zone");
    let ports = [("http", greeting_port)];
    let slice = manifest::slice(NAMESPACE, "greeting", "greeting-slice", &ports, [endpoint]);
    server.put(&slice);

    let account = tempfile::tempdir().unwrap();
    let token = server.add_user(&format!("system:serviceaccount:{NAMESPACE}:hello"));
    let authority = server.ca_pem();
    for (name, content) in [
        ("token", token.as_str()),
        ("ca.crt", authority.as_str()),
        ("namespace", NAMESPACE),
    ] {
        fs::write(account.path().join(name), content).unwrap();
    }
    let [port] = free_ports();
    let address = server.address();
    let mut command = Command::new(example("kubernetes_service"));
    command
        .env_clear()
        .env("KUBERNETES_SERVICE_HOST", address.ip().to_string())
        .env("KUBERNETES_SERVICE_PORT", address.port().to_string())
        .env("WAYPOST_SERVICE_ACCOUNT_DIR", account.path())
        .env("BIND", "127.0.0.1")
        .env("PORT", port.to_string())
        .kill_on_drop(true);
    let mut program = Program::start(command);

    let url = format!("http://127.0.0.1:{port}");
    eventually("the example calls greeting", async || {
        let response = http().get(format!("{url}/")).send().await.ok()?;
        (response.text().await.ok()? == "hello\n").then_some(())
    })
    .await;
    let report = http().get(format!("{url}/readyz")).send().await.unwrap();
    let report: Value = report.json().await.unwrap();
    assert_eq!(report["status"], json!("passing"));
    program.interrupt();
    assert_eq!(
        program.wait_for_exit().await,
        Some(0),
        "{}",
        program.output()
    );
}
