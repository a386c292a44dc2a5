//! The query commands: their output and exit codes.

use std::process::Output;

use serde_json::Value;
use waypost_testkit::free_ports;

use crate::support::*;

async fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = waypost(arguments);
    command.envs(variables.iter().copied());
    command.output().await.unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn an_instance_is_registered_found_watched_and_deregistered() {
    let [port] = free_ports().map(|port| port.to_string());
    let mut agent = Program::start(waypost(&["agent", "--http-port", &port, "--dns-port", "0"]));
    agent.wait_for_output("/ui/").await;
    let address = format!("127.0.0.1:{port}");
    let registry: &[(&str, &str)] = &[("CONSUL_HTTP_ADDR", &address)];

    let mut watch = waypost(&["watch", "web", "--json", "--count", "3"]);
    watch.envs(registry.iter().copied());
    let mut watch = Program::start(watch);
    watch.wait_for_output("\"known\":false").await;

    let registered = run(
        &[
            "register",
            "web",
            "--port",
            "8080",
            "--id",
            "web-1",
            "--service-version",
            "2.0.0",
            "--tag",
            "api",
            "--meta",
            "team=search",
        ],
        registry,
    )
    .await;
    assert!(registered.status.success(), "{}", stderr(&registered));
    assert_eq!(stdout(&registered), "web-1\n");
    watch.wait_for_output("web-1").await;

    let services = run(&["services", "-o", "name"], registry).await;
    assert_eq!(stdout(&services), "consul\nweb\n");
    let table = stdout(&run(&["instances", "web"], registry).await);
    assert!(table.contains("web-1  http://127.0.0.1:8080"), "{table}");
    let json = stdout(&run(&["instances", "web", "--json"], registry).await);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["instances"][0]["metadata"]["team"], "search");
    assert_eq!(json["instances"][0]["version"], "2.0.0");
    let url = run(&["resolve", "web", "--path", "/x"], registry).await;
    assert_eq!(stdout(&url), "http://127.0.0.1:8080/x\n");

    let explained = stdout(&run(&["explain", "web"], registry).await);
    assert!(explained.contains("healthy   1 of 1"), "{explained}");
    assert!(explained.contains("used"), "{explained}");
    assert!(explained.contains("100.0 %"), "{explained}");
    let json = stdout(&run(&["explain", "web", "--json"], registry).await);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["instances"][0]["selection"], "used");

    assert!(
        run(&["deregister", "web-1"], registry)
            .await
            .status
            .success()
    );
    assert_eq!(watch.wait_for_exit().await, Some(0), "{}", watch.output());
    let unknown = run(&["resolve", "web"], registry).await;
    assert_eq!(unknown.status.code(), Some(3));
    let stderr = stderr(&unknown);
    assert!(stderr.contains("\"web\" is unknown"), "{stderr}");
}

#[tokio::test]
async fn each_error_has_its_own_message_and_exit_code() {
    let [unused] = free_ports();
    let unused = format!("127.0.0.1:{unused}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.yaml");
    std::fs::write(&file, "auth:\n  address: auth\n  port: 80000\n").unwrap();
    let file = file.to_str().unwrap();
    let empty = directory.path().join("empty.yaml");
    std::fs::write(&empty, "auth:\n  instances: []\n").unwrap();
    let empty = empty.to_str().unwrap();
    let sick = directory.path().join("sick.yaml");
    std::fs::write(&sick, "auth: {url: \"http://auth\", health: critical}\n").unwrap();
    let sick = sick.to_str().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = listener.local_addr().unwrap().to_string();
    for (arguments, variables, code, message) in [
        (
            &["services", "--registry", &unused][..],
            &[][..],
            4,
            "start one: waypost up",
        ),
        (&["resolve", "a b"], &[], 2, "not valid"),
        (
            &["services", "--registry", "http://a/b"],
            &[],
            2,
            "--registry: Consul address",
        ),
        (
            &["services"],
            &[("SERVICE_DISCOVERY_PROVIDER", "etcd")],
            2,
            "env, static, consul",
        ),
        (
            &["resolve", "auth"],
            &[("SERVICE_AUTH_URL", "auth")],
            2,
            "SERVICE_AUTH_URL: URL \"auth\"",
        ),
        (
            &["services"],
            &[("SERVICE_DISCOVERY_CONFIG_FILE", file)],
            2,
            "services.yaml:3:",
        ),
        (
            &["resolve", "x"],
            &[("SERVICE_AUTH_URL", "http://a")],
            3,
            "unknown",
        ),
        (
            &["resolve", "auth"],
            &[("SERVICE_DISCOVERY_CONFIG_FILE", empty)],
            3,
            "start one, or see `waypost doctor auth`",
        ),
        (
            &["resolve", "x", "--registry", &hanging, "--timeout", "1ms"],
            &[],
            4,
            "in 1ms; wait longer with --timeout",
        ),
        (
            &["resolve", "auth"],
            &[("SERVICE_DISCOVERY_CONFIG_FILE", sick)],
            3,
            "`waypost instances auth` shows why",
        ),
        (
            &["register", "x", "--port", "1"],
            &[("SERVICE_AUTH_URL", "http://a")],
            1,
            "environment variables",
        ),
        (
            &["register", "x", "--port", "1", "--meta", "oops"],
            &[],
            2,
            "KEY=VALUE",
        ),
        (
            &["up", "--scale", "unknown=2"],
            &[],
            1,
            "ai-models, gateway, ui",
        ),
    ] {
        let output = run(arguments, variables).await;
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
        assert_eq!(stdout(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn variables_and_files_are_queried_like_a_registry() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.json");
    std::fs::write(&file, r#"{"auth": {"url": "http://auth-service:5001"}}"#).unwrap();
    for variables in [
        &[("SERVICE_DISCOVERY_CONFIG_FILE", file.to_str().unwrap())][..],
        &[
            ("SERVICE_AUTH_HOST", "auth-service"),
            ("SERVICE_AUTH_PORT", "5001"),
        ],
    ] {
        let names = run(&["services", "-o", "name"], variables).await;
        assert_eq!(stdout(&names), "auth\n");
        let url = run(&["resolve", "auth", "--path", "health"], variables).await;
        assert_eq!(stdout(&url), "http://auth-service:5001/health\n");
    }
}

#[tokio::test]
async fn explain_uses_the_check_the_zone_and_the_strategy() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap().port();
    let [dead] = free_ports();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.yaml");
    let services = format!(
        "auth:\n  instances:\n    - {{id: alive, url: \"http://127.0.0.1:{alive}\", zone: a}}\n    \
         - {{id: dead, url: \"http://127.0.0.1:{dead}\", zone: b}}\n"
    );
    std::fs::write(&file, services).unwrap();
    let file = ("SERVICE_DISCOVERY_CONFIG_FILE", file.to_str().unwrap());
    let explain = async |more: &[&str], variables: &[(&str, &str)]| {
        let arguments = [&["explain", "auth"], more].concat();
        let output = run(&arguments, &[&[file], variables].concat()).await;
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    };
    let unchecked = explain(&[], &[]).await;
    assert!(!unchecked.contains("ejected"), "{unchecked}");
    for (flag, variable) in [
        (&["--check", "tcp"][..], &[][..]),
        (&[], &[("SERVICE_DISCOVERY_ACTIVE_CHECK", "tcp")]),
    ] {
        let checked = explain(flag, variable).await;
        let line = |id: &str| checked.lines().find(|line| line.starts_with(id));
        assert!(line("alive").unwrap().contains("passes"), "{checked}");
        let dead = line("dead").unwrap();
        assert!(
            dead.contains("refused") && dead.contains("ejected"),
            "{checked}"
        );
        assert!(dead.contains("0.0 %"), "{checked}");
    }
    let zone = [
        ("SERVICE_DISCOVERY_ZONE", "a"),
        ("SERVICE_DISCOVERY_STRATEGY", "weighted_random"),
    ];
    let zoned = explain(&[], &zone).await;
    assert!(zoned.contains("weighted_random"), "{zoned}");
    assert!(zoned.contains("other_zone"), "{zoned}");
    let invalid = run(&["explain", "auth", "--check", "udp"], &[file]).await;
    assert_eq!(invalid.status.code(), Some(2));
    assert!(stderr(&invalid).contains("use tcp or http:/health"));
}
