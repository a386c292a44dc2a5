//! The registry's own commands: what they start runs, and what they write can be started.

use std::path::Path;

use tokio::time::{Instant, sleep};
use waypost_testkit::{free_ports, http_client};

use crate::support::*;

#[tokio::test]
async fn a_registry_for_development_starts_answers_and_ends() {
    let [port] = free_ports().map(|port| port.to_string());
    let mut registry = Program::start(waypost(&[
        "registry",
        "start",
        "--dev",
        "--http-port",
        &port,
    ]));
    registry.says("/ui/").await;
    let address = format!("127.0.0.1:{port}");
    let status = async || {
        let mut status = waypost(&["registry", "status", "--json", "--registry", &address]);
        status.output().await.unwrap()
    };
    let up = status().await;
    assert_eq!(up.status.code(), Some(0), "{up:?}");
    let said: serde_json::Value = serde_json::from_slice(&up.stdout).unwrap();
    assert_eq!(
        (&said["answers"], &said["services"]),
        (&true.into(), &1.into())
    );

    let second = waypost(&["registry", "start", "--dev", "--http-port", &port]).output();
    let second = String::from_utf8(second.await.unwrap().stderr).unwrap();
    assert!(
        second.contains(&port) && second.contains("--http-port"),
        "{second}"
    );

    registry.interrupt();
    assert_eq!(registry.ends().await, Some(0));
    assert_eq!(status().await.status.code(), Some(4));
}

#[tokio::test]
async fn without_a_consul_the_way_to_get_one_is_told() {
    let nowhere = tempfile::tempdir().unwrap();
    for (arguments, code, word) in [
        (&["registry", "start", "--dev"][..], 1, "registry install"),
        (&["registry", "install"], 0, "waypost agent"),
    ] {
        let mut command = waypost(arguments);
        command.env_remove("CONSUL_BIN").env("PATH", nowhere.path());
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains(word), "{said}");
    }
}

/// The first of six ports in a row that are free now.
fn six_ports() -> u16 {
    loop {
        let six: [u16; 6] = free_ports();
        if six.is_sorted_by(|port, next| port + 1 == *next) {
            return six[0];
        }
    }
}

#[tokio::test]
async fn what_config_writes_is_a_cluster_with_tls_and_acls() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("cluster");
    let data = folder.path().join("data");
    let text = |path: &Path| path.display().to_string();
    let ports: [u16; 4] = std::array::from_fn(|_| six_ports());
    let mut config = waypost(&["registry", "config", "--out", &text(&out)]);
    config.args(["--data-dir", &text(&data)]);
    for port in &ports[..3] {
        config.args(["--server", &format!("127.0.0.1:{port}")]);
    }
    config.args(["--client", &format!("127.0.0.1:{}", ports[3])]);
    let written = config.output().await.unwrap();
    assert!(written.status.success(), "{written:?}");
    // It never overwrites what may be the only copy of keys.
    assert_eq!(config.output().await.unwrap().status.code(), Some(1));

    let mut nodes = Vec::new();
    for name in ["server-1", "server-2", "server-3", "client-1"] {
        let node = waypost(&["registry", "start", "--config", &text(&out.join(name))]);
        nodes.push(Program::start(node));
    }
    let secrets = out.join("secrets");
    let plain = format!("http://127.0.0.1:{}", ports[0]);
    let bootstrap = [
        "registry",
        "bootstrap",
        "--secrets",
        &text(&secrets),
        "--address",
        &plain,
        "--timeout",
        "2m",
    ];
    let done = waypost(&bootstrap).output().await.unwrap();
    assert!(done.status.success(), "{done:?}");
    assert!(
        waypost(&bootstrap).output().await.unwrap().status.success(),
        "twice does no harm"
    );

    let deadline = Instant::now() + SOON;
    loop {
        let peers = http_client()
            .get(format!("{plain}/v1/status/peers"))
            .send()
            .await;
        let peers = peers.unwrap().text().await.unwrap();
        let peers: Vec<String> = serde_json::from_str(&peers).unwrap_or_default();
        if peers.len() == 3 {
            break;
        }
        assert!(Instant::now() < deadline, "{peers:?}");
        sleep(std::time::Duration::from_millis(100)).await;
    }

    // Through the client agent, by mutual TLS.
    let ask = async |arguments: &[&str], token: bool, certified: bool| {
        let mut command = waypost(arguments);
        let address = format!("https://127.0.0.1:{}", ports[3] + 1);
        command.env("CONSUL_HTTP_ADDR", address);
        command.env("CONSUL_CACERT", secrets.join("ca.pem"));
        if certified {
            let node = out.join("client-1");
            command.env("CONSUL_CLIENT_CERT", node.join("node.pem"));
            command.env("CONSUL_CLIENT_KEY", node.join("node-key.pem"));
        }
        if token {
            command.env("CONSUL_HTTP_TOKEN_FILE", secrets.join("root-token"));
        }
        command.output().await.unwrap()
    };
    let register = [
        "register",
        "web",
        "--port",
        "80",
        "--address",
        "127.0.0.1",
        "--timeout",
        "20s",
    ];
    let registered = ask(&register, true, true).await;
    assert!(registered.status.success(), "{registered:?}");
    loop {
        let found = ask(&["instances", "web", "--json"], true, true).await;
        let said = String::from_utf8(found.stdout).unwrap();
        if said.contains("http://127.0.0.1:80") {
            break;
        }
        assert!(Instant::now() < deadline, "{said} {:?}", found.stderr);
        sleep(std::time::Duration::from_millis(100)).await;
    }
    let refused = ask(&["instances", "web"], false, true).await;
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let refused = ask(&["instances", "web"], true, false).await;
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");

    for node in &mut nodes {
        node.interrupt();
    }
    for node in &mut nodes {
        node.ends().await;
    }
}
