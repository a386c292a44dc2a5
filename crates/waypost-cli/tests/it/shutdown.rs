//! How commands end: they deregister what they registered, and a closed stdout is not a failure.

use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;
use waypost_fake_kubernetes::ApiServer;
use waypost_testkit::free_ports;

use crate::support::*;

#[tokio::test]
async fn a_held_instance_is_deregistered_on_each_signal() {
    let registry = Registry::start(&[]).await;
    for signal_number in [Signal::TERM, Signal::INT, Signal::HUP] {
        let arguments = ["register", "hello", "--port", "9100", "--hold"];
        let mut held = Program::start(registry.command(&arguments));
        held.wait_for_output("hello-").await;
        assert_eq!(registry.instances("hello").await.len(), 1);
        signal(held.pid(), signal_number);
        let code = held.wait_for_exit().await;
        assert_eq!(code, Some(0), "{signal_number:?}: {}", held.output());
        let left = registry.instances("hello").await;
        assert!(left.is_empty(), "{signal_number:?}: {left:?}");
    }
}

#[tokio::test]
async fn a_held_instance_in_kubernetes_is_deregistered_on_sigterm() {
    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    let mut command = waypost(&["register", "web", "--port", "80", "--address", "10.0.0.7"]);
    command
        .arg("--hold")
        .env("KUBECONFIG", server.kubeconfig())
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes");
    let mut held = Program::start(command);
    held.wait_for_output("web-").await;
    assert!(server.get("services", "demo", "web").is_some());
    signal(held.pid(), Signal::TERM);
    assert_eq!(held.wait_for_exit().await, Some(0), "{}", held.output());
    assert_eq!(server.get("services", "demo", "web"), None);
}

#[tokio::test]
async fn a_registration_that_is_stopped_before_it_succeeds_leaves_no_instance() {
    let [port] = free_ports();
    let address = format!("127.0.0.1:{port}");
    let mut command = waypost(&["register", "hello", "--port", "9100", "--hold"]);
    command.args(["--registry", &address, "--timeout", "1m"]);
    command.env("RUST_LOG", "warn");
    let mut held = Program::start(command);
    held.wait_for_output("registr").await;
    signal(held.pid(), Signal::TERM);
    let code = held.wait_for_exit().await;
    // It is unknown whether a registry that doesn't respond has the instance.
    assert_eq!(code, Some(4), "{}", held.output());
}

#[tokio::test]
async fn servers_shut_down_gracefully_when_their_terminal_is_closed() {
    let registry = Registry::start(&[]).await;
    let [gateway, ui, models] = free_ports().map(|port| port.to_string());
    for (service, arguments) in [
        ("api-gateway", &["gateway", "--port", &gateway][..]),
        ("ui", &["service", "ui", "--port", &ui]),
        ("ai-models", &["service", "ai-models", "--port", &models]),
    ] {
        let mut server = Program::start(registry.command(arguments));
        eventually(&format!("{service} is registered"), async || {
            (registry.instances(service).await.len() == 1).then_some(())
        })
        .await;
        signal(server.pid(), Signal::HUP);
        assert_eq!(server.wait_for_exit().await, Some(0), "{}", server.output());
        assert!(registry.instances(service).await.is_empty(), "{service}");
    }
    let Registry { mut agent, .. } = registry;
    signal(agent.pid(), Signal::HUP);
    assert_eq!(agent.wait_for_exit().await, Some(0), "{}", agent.output());
}

#[tokio::test]
async fn nohup_survives_the_end_of_the_terminal() {
    let registry = Registry::start(&[]).await;
    let program = env!("CARGO_BIN_EXE_waypost");
    let mut command = Command::new("nohup");
    command
        .args([program, "register", "hello", "--port", "9100", "--hold"])
        .args(["--registry", &registry.address])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let mut held = Program::start(command);
    held.wait_for_output("hello-").await;
    signal(held.pid(), Signal::HUP);
    signal(held.pid(), Signal::TERM);
    assert_eq!(held.wait_for_exit().await, Some(0), "{}", held.output());
    assert!(registry.instances("hello").await.is_empty());
}

/// Runs a command with stdout closed, and stderr too if `with_stderr` is set.
async fn run_unread(mut command: Command, with_stderr: bool) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    if with_stderr {
        command.stderr(writer.try_clone().unwrap());
    } else {
        command.stderr(Stdio::piped());
    }
    command.stdout(writer);
    let child = command.spawn().unwrap();
    // The command holds the writing end too.
    drop(command);
    let output = timeout(TIMEOUT, child.wait_with_output()).await;
    let output = output.expect("the command should end").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[tokio::test]
async fn a_closed_stdout_ends_a_query_quietly() {
    let registry = Registry::start(&[]).await;
    registry
        .register(json!({ "ID": "web-1", "Name": "web", "Port": 80 }))
        .await;
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("cluster");
    for arguments in [
        &["services"][..],
        &["services", "--json"],
        &["instances", "web"],
        &["instances", "web", "--json"],
        &["explain", "web"],
        &["explain", "web", "--json"],
        &["resolve", "web"],
        &["watch", "web"],
        &["watch", "web", "--json"],
        &["register", "web", "--port", "81", "--id", "web-2"],
        &["registry", "status"],
        &["registry", "install"],
        &[
            "registry",
            "config",
            "--server",
            "10.0.0.1",
            "--out",
            out.to_str().unwrap(),
        ],
        &["agent", "leftovers"],
        &["completions", "bash"],
        &["status"],
        &["version"],
        &["--help"],
        &["--version"],
    ] {
        for with_stderr in [false, true] {
            if with_stderr && out.exists() {
                std::fs::remove_dir_all(&out).unwrap();
            }
            let (code, stderr) = run_unread(registry.command(arguments), with_stderr).await;
            assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
            assert_eq!(stderr, "", "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn a_closed_stderr_does_not_change_the_exit_code() {
    let [unused] = free_ports();
    let mut command = waypost(&["services"]);
    command.env("CONSUL_HTTP_ADDR", format!("127.0.0.1:{unused}"));
    let (code, _) = run_unread(command, true).await;
    assert_eq!(code, Some(4));
}

#[tokio::test]
async fn a_server_keeps_running_when_its_output_is_closed() {
    let [port] = free_ports();
    let mut command = waypost(&["agent", "--dns-port", "0", "--http-port"]);
    command.arg(port.to_string());
    command.env("RUST_LOG", "trace");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut agent = command.spawn().unwrap();
    let url = format!("http://127.0.0.1:{port}/v1/status/leader");
    eventually("the registry responds", async || {
        http().get(&url).send().await.ok().map(drop)
    })
    .await;
    signal(agent.id().unwrap().try_into().unwrap(), Signal::TERM);
    assert_eq!(agent.wait().await.unwrap().code(), Some(0));
}
