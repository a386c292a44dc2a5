//! `waypost agent`: running the registry, listing stale instances, shutting down.

use serde_json::{Value, json};
use tokio::process::Command;
use waypost_testkit::free_ports;

use crate::support::*;

async fn start(arguments: &[&str]) -> (Program, String) {
    let [port] = free_ports().map(|port| port.to_string());
    let mut all = vec!["agent", "--http-port", &port, "--dns-port", "0"];
    all.extend(arguments);
    let mut agent = Program::start(waypost(&all));
    agent.wait_for_output("/ui/").await;
    (agent, format!("127.0.0.1:{port}"))
}

async fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let mut program = Program::start(waypost(arguments));
    let code = program.wait_for_exit().await;
    (code, program.output())
}

#[tokio::test]
async fn instances_of_dead_processes_are_listed_and_deregistered() {
    let (agent, address) = start(&["--token", "secret"]).await;
    let [dead] = free_ports();
    let alive = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = alive.local_addr().unwrap().port();
    for (id, port) in [("dead-1", dead), ("alive-1", alive)] {
        let check = json!({ "TCP": format!("127.0.0.1:{port}"), "Interval": "1h" });
        let body = json!({ "ID": id, "Name": "web", "Port": port, "Check": check });
        let url = format!("http://{address}/v1/agent/service/register?token=secret");
        let request = http().put(url).body(body.to_string());
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let options = ["--registry", &address, "--token", "secret"];
    let list = [&["agent", "leftovers"][..], &options].concat();
    let listed = eventually("the dead instance is listed", async || {
        let (code, output) = run(&list).await;
        assert_eq!(code, Some(0), "{output}");
        output.contains("dead-1").then_some(output)
    })
    .await;
    assert!(listed.contains("nothing listens on"), "{listed}");
    assert!(!listed.contains("alive-1"), "{listed}");

    let (code, output) = run(&[&list[..], &["--clear", "--json"]].concat()).await;
    assert_eq!(code, Some(0), "{output}");
    let cleared: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(cleared["cleared"], true);
    assert_eq!(cleared["leftovers"][0]["id"], "dead-1");
    let remaining = get_json(&format!("http://{address}/v1/agent/services?token=secret")).await;
    assert_eq!(
        remaining.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["alive-1"]
    );
    let (_, output) = run(&list).await;
    assert!(output.contains("no stale instances"), "{output}");

    let (code, output) = run(&["agent", "leftovers", "--registry", &address]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("403"), "{output}");
    agent.interrupt();
}

#[tokio::test]
async fn leave_shuts_the_agent_down() {
    let (mut agent, address) = start(&[]).await;
    let (code, output) = run(&["agent", "leave", "--registry", &address]).await;
    assert_eq!(code, Some(0), "{output}");
    assert_eq!(agent.wait_for_exit().await, Some(0), "{}", agent.output());
    let (code, output) = run(&["agent", "leave", "--registry", &address]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains(&address), "{output}");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_the_option_that_chooses_another() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port().to_string();
    let [free] = free_ports().map(|port| port.to_string());
    for (http, dns, option) in [(&taken, "0", "--http-port"), (&free, &*taken, "--dns-port")] {
        let (code, output) = run(&["agent", "--http-port", http, "--dns-port", dns]).await;
        assert_eq!(code, Some(1), "{output}");
        let expected = format!("it is in use by pid {} (", std::process::id());
        assert!(output.contains(&expected), "{output}");
        let advice = format!("choose another port with {option}\n");
        assert!(output.ends_with(&advice), "{output}");
    }
}

#[tokio::test]
async fn a_server_raises_its_limit_of_open_files() {
    let [port] = free_ports().map(|port| port.to_string());
    let agent = waypost(&["agent", "--http-port", &port, "--dns-port", "0"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -Sn 256 && exec \"$0\" \"$@\""])
        .arg(agent.as_std().get_program())
        .args(agent.as_std().get_args());
    let mut agent = Program::start(limited);
    agent.wait_for_output("/ui/").await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let values: Vec<_> = files.unwrap().split_whitespace().collect();
    assert_ne!(values[3], "256", "{limits}");
    assert_eq!(values[3], values[4], "{limits}");
    agent.interrupt();
}

/// In a namespace with a Service named `service-registry`, every pod has this variable.
#[tokio::test]
async fn a_service_link_of_kubernetes_is_not_the_port_of_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("token");
    std::fs::write(&empty, "").unwrap();
    // The default port may be in use here, so the agent is stopped by its empty token file.
    let mut command = waypost(&["agent", "--token-file", empty.to_str().unwrap()]);
    command.env("SERVICE_REGISTRY_PORT", "tcp://10.0.0.1:8500");
    let output = Finished::of(command).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("is empty"), "{output:?}");
}
