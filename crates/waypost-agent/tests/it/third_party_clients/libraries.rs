//! Client libraries of other languages. The same scripts also run against a real Consul, so that
//! they expect nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio::time::timeout;
use waypost_agent::Agent;

use super::{SOON, program, tools};
use crate::real_consul::Consul;

#[tokio::test(flavor = "multi_thread")]
async fn py_consul_passes_its_script() {
    let python = program("WAYPOST_PYTHON", "py-consul-1.8.0/bin/python");
    passes_as_with_consul("py_consul.py", &python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_consul_passes_its_script() {
    passes_as_with_consul("npm_consul.js", &program("WAYPOST_NODE", "node")).await;
}

async fn passes_as_with_consul(script: &str, interpreter: &Path) {
    let agent = Agent::start().await.unwrap();
    run(script, interpreter, agent.http_addr()).await;
    let consul = Consul::start("n1").await;
    run(script, interpreter, consul.http).await;
}

async fn run(script: &str, interpreter: &Path, registry: SocketAddr) {
    let modules = std::env::var_os("NODE_PATH").map(PathBuf::from);
    let modules = modules.unwrap_or_else(|| tools().join("npm-consul-2.0.1/node_modules"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/third_party_clients");
    let mut command = Command::new(interpreter);
    command
        .arg(folder.join(script))
        .args([registry.ip().to_string(), registry.port().to_string()])
        .env("NODE_PATH", modules)
        .kill_on_drop(true);
    let output = timeout(SOON, command.output()).await;
    let output = output.expect("the script timed out").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} at {registry}: {errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "passed");
}
