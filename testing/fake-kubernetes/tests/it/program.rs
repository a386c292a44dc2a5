//! The stand-in as a program.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::client::{SOON, answer};

#[tokio::test]
async fn is_used_by_hand() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let mut program = Command::new(env!("CARGO_BIN_EXE_waypost-fake-kubernetes"))
        .args(["--listen", "127.0.0.1:0", "--control", "127.0.0.1:0"])
        .args(["--user", "reader", "--kubeconfig"])
        .arg(&kubeconfig)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut word = async || {
        let line = tokio::time::timeout(SOON, lines.next_line()).await;
        let line = line.expect("a line in time").unwrap().unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let (url, control) = (word().await, word().await);
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    assert!(text.contains(&format!("server: {url}")), "{text}");
    assert!(text.contains("- name: reader-certificate"), "{text}");

    let http = reqwest::Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .no_proxy()
        // A kept connection that the server has broken fails otherwise than one that can't be made.
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let post = async |path: &str| answer(http.post(format!("{control}{path}"))).await.0;
    let livez = async || http.get(format!("{url}/livez")).send().await;
    assert_eq!(livez().await.unwrap().status(), 200);
    assert_eq!(post("/kill").await, 200);
    assert!(livez().await.unwrap_err().is_connect());
    assert_eq!(post("/restart").await, 200);
    assert_eq!(livez().await.unwrap().status(), 200);
    assert_eq!(post("/restore").await, 409);
    assert_eq!(post("/backup").await, 200);
    assert_eq!(post("/restore").await, 200);
    let slices = format!("{url}/apis/discovery.k8s.io/v1/endpointslices");
    assert_eq!(answer(http.get(&slices)).await.0, 403);
    let (_, requests) = answer(http.get(format!("{control}/requests"))).await;
    assert!(
        requests
            .as_str()
            .unwrap()
            .contains("403 system:anonymous list endpointslices")
    );
    assert_eq!(post("/nothing").await, 404);
    program.kill().await.unwrap();
}
