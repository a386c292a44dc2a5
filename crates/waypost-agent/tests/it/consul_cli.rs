//! Consul's own command, which doesn't know that it isn't talking to Consul.

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

/// What a command that must succeed says.
async fn says(agent: &Agent, arguments: &[&str]) -> String {
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
        assert!(Instant::now() < deadline, "{text:?} never came: {content}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn keys_are_put_got_listed_and_deleted() {
    let agent = Agent::start().await.unwrap();
    says(&agent, &["kv", "put", "-flags=42", "a/b", "hello"]).await;
    assert_eq!(says(&agent, &["kv", "get", "a/b"]).await, "hello");
    assert_eq!(
        says(&agent, &["kv", "get", "-recurse", "a"]).await,
        "a/b:hello"
    );
    assert_eq!(says(&agent, &["kv", "get", "-keys", ""]).await, "a/");
    let detailed = says(&agent, &["kv", "get", "-detailed", "a/b"]).await;
    assert!(detailed.contains("Flags            42"), "{detailed}");
    let stale = run(
        &agent,
        &["kv", "put", "-cas", "-modify-index=1", "a/b", "x"],
    )
    .await;
    assert!(String::from_utf8_lossy(&stale.stderr).contains("CAS failed"));
    let exported = says(&agent, &["kv", "export"]).await;
    says(&agent, &["kv", "delete", "-recurse", "a"]).await;
    let gone = run(&agent, &["kv", "get", "a/b"]).await;
    assert!(!gone.status.success());
    says(&agent, &["kv", "import", &exported]).await;
    assert_eq!(says(&agent, &["kv", "get", "a/b"]).await, "hello");
}

#[tokio::test]
async fn a_lock_is_held_by_one_command_at_a_time() {
    let agent = Agent::start().await.unwrap();
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("log");
    let script = format!("echo in >> {0}; sleep 0.2; echo out >> {0}", log.display());
    let lock = || async { says(&agent, &["lock", "place", &script]).await };
    tokio::join!(lock(), lock(), lock());
    let log = std::fs::read_to_string(log).unwrap();
    assert_eq!(log, "in\nout\n".repeat(3), "two were in at once");
    // The command removes its key and its session when it is done.
    let keys = run(&agent, &["kv", "get", "-keys", "place"]).await;
    assert_eq!(String::from_utf8_lossy(&keys.stdout).trim(), "");
}

#[tokio::test]
async fn watches_see_what_changes() {
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
    // Each tells first how things are.
    wait_for(&services, "consul").await;
    wait_for(&events, "[]").await;
    says(&agent, &["kv", "put", "w/k", "one"]).await;
    wait_for(&key, "\"Value\":\"b25l\"").await;
    wait_for(&prefix, "w/k").await;
    says(&agent, &["kv", "put", "w/k", "two"]).await;
    wait_for(&key, "\"Value\":\"dHdv\"").await;
    says(&agent, &["event", "-name", "deploy", "now"]).await;
    wait_for(&events, "\"Payload\":\"bm93\"").await;
    let definition = folder.path().join("web.json");
    let body = r#"{"service":{"name":"web","check":{"ttl":"1h"}}}"#;
    std::fs::write(&definition, body).unwrap();
    says(
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
async fn the_rest_of_the_command_finds_what_it_looks_for() {
    let agent = Agent::builder().node_name("n1").start().await.unwrap();
    let members = says(&agent, &["members"]).await;
    assert!(
        members.contains("n1") && members.contains("alive"),
        "{members}"
    );
    assert_eq!(says(&agent, &["catalog", "services"]).await, "consul");
    says(&agent, &["maint", "-enable", "-reason", "because"]).await;
    let maintenance = says(&agent, &["maint"]).await;
    assert!(maintenance.contains("because"), "{maintenance}");
    says(&agent, &["maint", "-disable"]).await;
    let trip = says(&agent, &["rtt", "n1", "n1"]).await;
    assert!(trip.contains("Estimated n1 <-> n1 rtt"), "{trip}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_command_works_over_a_socket() {
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
async fn what_is_not_served_is_said_and_what_can_be_read_is_shown() {
    let agent = Agent::builder().node_name("n1").start().await.unwrap();
    let peers = says(&agent, &["operator", "raft", "list-peers"]).await;
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
