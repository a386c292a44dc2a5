//! Tests with Consul's own command-line client.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};
use waypost_agent::Agent;

use crate::real_consul;

const SOON: Duration = Duration::from_secs(60);

fn command(agent: &Agent, arguments: &[&str]) -> Command {
    let mut command = Command::new(real_consul::find());
    command
        .args(arguments)
        .env("CONSUL_HTTP_ADDR", agent.http_addr().to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn run(agent: &Agent, arguments: &[&str]) -> Output {
    let output = timeout(SOON, command(agent, arguments).output()).await;
    output
        .unwrap_or_else(|_| panic!("{arguments:?} doesn't end"))
        .unwrap()
}

/// Runs a command that must succeed and returns its output.
async fn output_of(agent: &Agent, arguments: &[&str]) -> String {
    let output = run(agent, arguments).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn wait_for(file: &Path, text: &str) {
    let deadline = Instant::now() + SOON;
    loop {
        let content = std::fs::read_to_string(file).unwrap_or_default();
        if content.contains(text) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{text:?} never appeared: {content}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn keys_can_be_put_read_listed_and_deleted() {
    let agent = Agent::start().await.unwrap();
    output_of(&agent, &["kv", "put", "-flags=42", "a/b", "hello"]).await;
    assert_eq!(output_of(&agent, &["kv", "get", "a/b"]).await, "hello");
    assert_eq!(
        output_of(&agent, &["kv", "get", "-recurse", "a"]).await,
        "a/b:hello"
    );
    assert_eq!(output_of(&agent, &["kv", "get", "-keys", ""]).await, "a/");
    let detailed = output_of(&agent, &["kv", "get", "-detailed", "a/b"]).await;
    assert!(detailed.contains("Flags            42"), "{detailed}");
    let stale = run(
        &agent,
        &["kv", "put", "-cas", "-modify-index=1", "a/b", "x"],
    )
    .await;
    assert!(String::from_utf8_lossy(&stale.stderr).contains("CAS failed"));
    let exported = output_of(&agent, &["kv", "export"]).await;
    output_of(&agent, &["kv", "delete", "-recurse", "a"]).await;
    let gone = run(&agent, &["kv", "get", "a/b"]).await;
    assert!(!gone.status.success());
    output_of(&agent, &["kv", "import", &exported]).await;
    assert_eq!(output_of(&agent, &["kv", "get", "a/b"]).await, "hello");
}

#[tokio::test]
async fn only_one_lock_command_runs_at_a_time() {
    let agent = Agent::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let script = format!("echo in >> {0}; sleep 0.2; echo out >> {0}", log.display());
    let lock = || async { output_of(&agent, &["lock", "place", &script]).await };
    tokio::join!(lock(), lock(), lock());
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(
        log,
        "in\nout\n".repeat(3),
        "two commands ran at the same time"
    );
    // The lock command removes its key and its session when it ends.
    let keys = run(&agent, &["kv", "get", "-keys", "place"]).await;
    assert_eq!(String::from_utf8_lossy(&keys.stdout).trim(), "");
}

#[tokio::test]
async fn watches_report_changes() {
    let agent = Agent::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let mut watches = Vec::new();
    let mut watch = |name: &'static str, arguments: &[&str]| {
        let file = folder.path().join(name);
        let handler = format!("cat >> {}", file.display());
        let arguments = [&["watch"], arguments, &[handler.as_str()]].concat();
        let mut command = command(&agent, &arguments);
        watches.push(command.stdout(Stdio::null()).spawn().unwrap());
        file
    };
    let key = watch("key", &["-type", "key", "-key", "w/k"]);
    let prefix = watch("prefix", &["-type", "keyprefix", "-prefix", "w/"]);
    let services = watch("services", &["-type", "services"]);
    let checks = watch("checks", &["-type", "checks", "-service", "web"]);
    let events = watch("events", &["-type", "event", "-name", "deploy"]);
    // Each watch first reports the current state.
    wait_for(&services, "consul").await;
    wait_for(&events, "[]").await;
    output_of(&agent, &["kv", "put", "w/k", "one"]).await;
    wait_for(&key, "\"Value\":\"b25l\"").await;
    wait_for(&prefix, "w/k").await;
    output_of(&agent, &["kv", "put", "w/k", "two"]).await;
    wait_for(&key, "\"Value\":\"dHdv\"").await;
    output_of(&agent, &["event", "-name", "deploy", "now"]).await;
    wait_for(&events, "\"Payload\":\"bm93\"").await;
    let definition = folder.path().join("web.json");
    let body = r#"{"service":{"name":"web","check":{"ttl":"1h"}}}"#;
    std::fs::write(&definition, body).unwrap();
    output_of(
        &agent,
        &["services", "register", &definition.display().to_string()],
    )
    .await;
    wait_for(&services, "web").await;
    wait_for(&checks, "service:web").await;
    for mut watch in watches {
        watch.kill().await.unwrap();
    }
}

#[tokio::test]
async fn members_services_maintenance_and_rtt_work() {
    let agent = Agent::builder().node_name("n1").start().await.unwrap();
    let members = output_of(&agent, &["members"]).await;
    assert!(
        members.contains("n1") && members.contains("alive"),
        "{members}"
    );
    assert_eq!(output_of(&agent, &["catalog", "services"]).await, "consul");
    output_of(&agent, &["maint", "-enable", "-reason", "because"]).await;
    let maintenance = output_of(&agent, &["maint"]).await;
    assert!(maintenance.contains("because"), "{maintenance}");
    output_of(&agent, &["maint", "-disable"]).await;
    let trip = output_of(&agent, &["rtt", "n1", "n1"]).await;
    assert!(trip.contains("Estimated n1 <-> n1 rtt"), "{trip}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_client_works_over_a_unix_socket() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("consul.sock");
    let agent = Agent::builder().http_socket(&path).start().await.unwrap();
    let address = format!("unix://{}", path.display());
    let mut lock = command(&agent, &["lock", "place", "echo held"]);
    lock.env("CONSUL_HTTP_ADDR", &address);
    let output = timeout(SOON, lock.output()).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "held");
}

#[tokio::test]
async fn unsupported_commands_fail_with_an_explanation() {
    let agent = Agent::builder().node_name("n1").start().await.unwrap();
    let peers = output_of(&agent, &["operator", "raft", "list-peers"]).await;
    assert!(peers.contains("n1") && peers.contains("leader"), "{peers}");
    for (arguments, expected) in [
        (
            &["intention", "create", "a", "b"][..],
            "Intentions aren't served",
        ),
        (&["snapshot", "save", "nowhere"], "Snapshots aren't served"),
        (&["acl", "token", "list"], "ACL support disabled"),
        (&["join", "127.0.0.2"], "this registry has a single node"),
    ] {
        let output = run(&agent, arguments).await;
        assert!(!output.status.success(), "{arguments:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}
