//! `waypost registry`: starting a development server, installing, and configuring a cluster.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::time::{Instant, sleep};
use waypost_testkit::{free_ports, http_client};

use crate::support::*;

#[tokio::test]
async fn a_development_server_starts_responds_and_stops() {
    let [port] = free_ports().map(|port| port.to_string());
    let mut registry = Program::start(waypost(&[
        "registry",
        "start",
        "--dev",
        "--http-port",
        &port,
    ]));
    registry.wait_for_output("/ui/").await;
    let address = format!("127.0.0.1:{port}");
    let status = async || {
        let mut status = waypost(&["registry", "status", "--json", "--registry", &address]);
        status.output().await.unwrap()
    };
    let up = status().await;
    assert_eq!(up.status.code(), Some(0), "{up:?}");
    let printed: serde_json::Value = serde_json::from_slice(&up.stdout).unwrap();
    assert_eq!(
        (&printed["answers"], &printed["services"]),
        (&true.into(), &1.into())
    );

    let second = waypost(&["registry", "start", "--dev", "--http-port", &port]).output();
    let second = String::from_utf8(second.await.unwrap().stderr).unwrap();
    assert!(
        second.contains(&port) && second.contains("--http-port"),
        "{second}"
    );

    registry.interrupt();
    assert_eq!(registry.wait_for_exit().await, Some(0));
    assert_eq!(status().await.status.code(), Some(4));
}

#[tokio::test]
async fn without_consul_the_output_says_how_to_install_it() {
    let empty = tempfile::tempdir().unwrap();
    for (arguments, code, expected) in [
        (&["registry", "start", "--dev"][..], 1, "registry install"),
        (&["registry", "install"], 0, "waypost agent"),
        (&["up", "--registry", "consul"], 1, "registry install"),
    ] {
        let mut command = waypost(arguments);
        command.env_remove("CONSUL_BIN").env("PATH", empty.path());
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(code));
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.contains(expected), "{printed}");
    }
}

/// The first of six consecutive free ports.
fn six_ports() -> u16 {
    loop {
        let six: [u16; 6] = free_ports();
        if six.is_sorted_by(|port, next| port + 1 == *next) {
            return six[0];
        }
    }
}

#[tokio::test]
async fn the_written_configuration_starts_a_cluster_with_tls_and_acls() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("cluster");
    let data = directory.path().join("data");
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
    // Only the owner can read the keys.
    for name in ["server-1", "client-1", "secrets"] {
        let folder = out.join(name);
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700, "{name}");
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
    }
    // Existing files may be the only copy of the keys, and are never overwritten.
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
        "bootstrap can be repeated"
    );

    let deadline = Instant::now() + 3 * TIMEOUT;
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

    // Through the client agent, with mutual TLS.
    let run = async |arguments: &[&str], with_token: bool, with_certificate: bool| {
        let mut command = waypost(arguments);
        let address = format!("https://127.0.0.1:{}", ports[3] + 1);
        command.env("CONSUL_HTTP_ADDR", address);
        command.env("CONSUL_CACERT", secrets.join("ca.pem"));
        if with_certificate {
            let node = out.join("client-1");
            command.env("CONSUL_CLIENT_CERT", node.join("node.pem"));
            command.env("CONSUL_CLIENT_KEY", node.join("node-key.pem"));
        }
        if with_token {
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
        "2m",
    ];
    let registered = run(&register, true, true).await;
    assert!(registered.status.success(), "{registered:?}");
    loop {
        let found = run(&["instances", "web", "--json"], true, true).await;
        let printed = String::from_utf8(found.stdout).unwrap();
        if printed.contains("http://127.0.0.1:80") {
            break;
        }
        assert!(Instant::now() < deadline, "{printed} {:?}", found.stderr);
        sleep(std::time::Duration::from_millis(100)).await;
    }
    let without_token = run(&["instances", "web"], false, true).await;
    assert_eq!(without_token.status.code(), Some(5), "{without_token:?}");
    let without_certificate = run(&["instances", "web"], true, false).await;
    let code = without_certificate.status.code();
    assert_eq!(code, Some(4), "{without_certificate:?}");

    for node in &mut nodes {
        node.interrupt();
    }
    for node in &mut nodes {
        node.wait_for_exit().await;
    }
}
