//! Questions and their answers: what is printed, and with which exit code.

use std::process::Output;

use serde_json::Value;
use waypost_testkit::free_ports;

use crate::support::*;

async fn ask(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = waypost(arguments);
    command.envs(variables.iter().copied());
    command.output().await.unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn an_instance_is_registered_found_watched_and_taken_back() {
    let [port] = free_ports().map(|port| port.to_string());
    let mut agent = Program::start(waypost(&["agent", "--http-port", &port, "--dns-port", "0"]));
    agent.says("/ui/").await;
    let address = format!("127.0.0.1:{port}");
    let registry: &[(&str, &str)] = &[("CONSUL_HTTP_ADDR", &address)];

    let mut watching = waypost(&["watch", "web", "--json", "--count", "3"]);
    watching.envs(registry.iter().copied());
    let mut watching = Program::start(watching);
    watching.says("\"known\":false").await;

    let registered = ask(
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
    assert!(registered.status.success(), "{}", complaint(&registered));
    assert_eq!(printed(&registered), "web-1\n");
    watching.says("web-1").await;

    let services = ask(&["services"], registry).await;
    assert_eq!(printed(&services), "consul\nweb\n");
    let table = printed(&ask(&["instances", "web"], registry).await);
    assert!(table.contains("web-1  http://127.0.0.1:8080"), "{table}");
    let json = printed(&ask(&["instances", "web", "--json"], registry).await);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["instances"][0]["metadata"]["team"], "search");
    assert_eq!(json["instances"][0]["version"], "2.0.0");
    let url = ask(&["resolve", "web", "--path", "/x"], registry).await;
    assert_eq!(printed(&url), "http://127.0.0.1:8080/x\n");

    let explained = printed(&ask(&["explain", "web"], registry).await);
    assert!(explained.contains("healthy   1 of 1"), "{explained}");
    assert!(explained.contains("used"), "{explained}");
    assert!(explained.contains("100.0 %"), "{explained}");
    let json = printed(&ask(&["explain", "web", "--json"], registry).await);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["instances"][0]["fate"], "used");

    assert!(
        ask(&["deregister", "web-1"], registry)
            .await
            .status
            .success()
    );
    assert_eq!(watching.ends().await, Some(0), "{}", watching.output());
    let nobody = ask(&["resolve", "web"], registry).await;
    assert_eq!(nobody.status.code(), Some(3));
    assert!(
        complaint(&nobody).contains("\"web\" is unknown"),
        "{}",
        complaint(&nobody)
    );
}

#[tokio::test]
async fn what_goes_wrong_has_its_own_words_and_exit_code() {
    let [nobody] = free_ports();
    let nobody = format!("127.0.0.1:{nobody}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.yaml");
    std::fs::write(&file, "auth:\n  address: auth\n  port: 80000\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, variables, code, words) in [
        (
            &["services", "--registry", &nobody][..],
            &[][..],
            4,
            "registry unreachable",
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
            &["services"],
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
            &["up", "--scale", "nobody=2"],
            &[],
            1,
            "ai-models, gateway, ui",
        ),
    ] {
        let output = ask(arguments, variables).await;
        let complaint = complaint(&output);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {complaint}"
        );
        assert!(complaint.contains(words), "{arguments:?}: {complaint}");
        assert_eq!(printed(&output), "", "{arguments:?}");
    }
}

#[tokio::test]
async fn variables_and_files_answer_like_a_registry() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.json");
    std::fs::write(&file, r#"{"auth": {"url": "http://auth-service:5001"}}"#).unwrap();
    for variables in [
        &[("SERVICE_DISCOVERY_CONFIG_FILE", file.to_str().unwrap())][..],
        &[
            ("SERVICE_AUTH_HOST", "auth-service"),
            ("SERVICE_AUTH_PORT", "5001"),
        ],
    ] {
        assert_eq!(printed(&ask(&["services"], variables).await), "auth\n");
        let url = ask(&["resolve", "auth", "--path", "health"], variables).await;
        assert_eq!(printed(&url), "http://auth-service:5001/health\n");
    }
}

#[tokio::test]
async fn instances_are_checked_from_here_and_explained_by_zone_and_strategy() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = listener.local_addr().unwrap().port();
    let [dead] = free_ports();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.yaml");
    let services = format!(
        "auth:\n  instances:\n    - {{id: alive, url: \"http://127.0.0.1:{alive}\", zone: a}}\n    \
         - {{id: dead, url: \"http://127.0.0.1:{dead}\", zone: b}}\n"
    );
    std::fs::write(&file, services).unwrap();
    let file = ("SERVICE_DISCOVERY_CONFIG_FILE", file.to_str().unwrap());
    let explain = async |more: &[&str], variables: &[(&str, &str)]| {
        let arguments = [&["explain", "auth"], more].concat();
        let answer = ask(&arguments, &[&[file], variables].concat()).await;
        assert!(answer.status.success(), "{}", complaint(&answer));
        printed(&answer)
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
    let wrong = ask(&["explain", "auth", "--check", "udp"], &[file]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(complaint(&wrong).contains("use tcp or http:/health"));
}
