//! Messages for users: text from outside is escaped, and errors say what to do.

use serde_json::{Value, json};
use waypost_fake_kubernetes::ApiServer;
use waypost_testkit::free_ports;

use crate::support::*;

#[tokio::test]
async fn text_from_the_registry_is_escaped() {
    let registry = Registry::start(&[]).await;
    let id = "web\x1b[2J\u{9b}\u{202e}-1";
    let tag = "a\nweb-2  http://10.0.0.66:80  passing";
    let check = json!({ "Name": "c\x07", "TTL": "1h", "Status": "critical", "Notes": "" });
    registry
        .register(json!({
            "ID": id, "Name": "web", "Port": 80, "Tags": [tag], "Check": check,
            "Meta": { "version": "1\r2" },
        }))
        .await;
    for arguments in [
        &["instances", "web"][..],
        &["explain", "web"],
        &["watch", "web", "--count", "1"],
        &["doctor", "web"],
        &["agent", "leftovers"],
        &["deregister", "nope\x1b"],
    ] {
        let output = registry.run(arguments).await;
        for text in [&output.stdout, &output.stderr] {
            let raw: Vec<char> = text
                .chars()
                .filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}')
                .collect();
            assert!(raw.is_empty(), "{arguments:?}: {text:?}");
            let is_forged = |line: &str| line.starts_with("web-2");
            assert!(!text.lines().any(is_forged), "{arguments:?}: {text}");
        }
    }
    let output = registry.run(&["instances", "web"]).await.stdout;
    assert!(output.contains(r"web\u{1b}[2J\u{9b}\u{202e}-1"), "{output}");
    assert!(output.contains(r"a\nweb-2"), "{output}");

    let json = registry.run(&["instances", "web", "--json"]).await.stdout;
    assert!(!json.trim_end().contains(char::is_control), "{json:?}");
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["instances"][0]["id"], id);
    assert_eq!(json["instances"][0]["tags"][0], tag);
}

#[tokio::test]
async fn instances_and_explain_say_why_an_instance_is_critical() {
    let registry = Registry::start(&[]).await;
    let [dead] = free_ports();
    let check = json!({ "Name": "alive", "TCP": format!("127.0.0.1:{dead}"), "Interval": "1s" });
    registry
        .register(json!({ "ID": "billing-1", "Name": "billing", "Port": dead, "Check": check }))
        .await;
    for (command, code) in [("instances", 0), ("explain", 3)] {
        let found = eventually("the check has failed", async || {
            let output = registry.run(&[command, "billing"]).await;
            assert_eq!(output.code, Some(code), "{output:?}");
            output.stdout.contains("refused").then_some(output.stdout)
        })
        .await;
        let reason = found.lines().find(|line| line.starts_with("billing-1: "));
        let reason = reason.unwrap();
        assert!(reason.starts_with("billing-1: critical"), "{found}");
        assert!(reason.contains(": check \"alive\": "), "{found}");
        let json = registry.run(&[command, "billing", "--json"]).await.stdout;
        let json: Value = serde_json::from_str(&json).unwrap();
        let checks = json["instances"][0]["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "alive");
        let check = check.unwrap();
        assert_eq!(check["health"], "critical");
        assert!(
            check["output"].as_str().unwrap().contains("refused"),
            "{json}"
        );
    }
}

#[tokio::test]
async fn json_has_one_schema() {
    let registry = Registry::start(&[]).await;
    registry
        .register(json!({ "ID": "web-1", "Name": "web", "Port": 80 }))
        .await;
    for arguments in [
        &["services"][..],
        &["instances", "web"],
        &["explain", "web"],
        &["watch", "web", "--count", "1"],
    ] {
        let output = registry.run(&[arguments, &["--json"]].concat()).await;
        let json: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(json["schema"], 1, "{arguments:?}: {json}");
        assert!(
            json["freshness"]["age_ms"].is_u64(),
            "{arguments:?}: {json}"
        );
        assert_eq!(json["freshness"]["stale"], false, "{arguments:?}: {json}");
        assert!(!output.stdout.contains("seconds"), "{arguments:?}: {json}");
        if arguments[0] != "services" {
            assert_eq!(json["known"], true, "{arguments:?}: {json}");
            assert_eq!(json["instances"][0]["url"], "http://127.0.0.1:80");
        }
    }
    for arguments in [
        &["resolve", "web"][..],
        &["registry", "status"],
        &["agent", "leftovers"],
        &["register", "db", "--port", "1", "--id", "db-1"],
        &["deregister", "db-1"],
    ] {
        let output = registry.run(&[arguments, &["--json"]].concat()).await;
        let json: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(json["schema"], 1, "{arguments:?}: {json}");
    }
}

#[tokio::test]
async fn deregistering_an_unknown_id_is_an_error() {
    let registry = Registry::start(&[]).await;
    let consul = waypost_testkit::Consul::start().await;
    for address in [registry.address.clone(), consul.address()] {
        let mut command = waypost(&["deregister", "nope"]);
        command.args(["--registry", &address]);
        let output = Finished::of(command).await;
        assert_eq!(output.code, Some(3), "{output:?}");
        assert!(output.stderr.contains("no instance \"nope\""), "{output:?}");
    }
    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    let mut command = waypost(&["deregister", "nope"]);
    command
        .env("KUBECONFIG", server.kubeconfig())
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes");
    let output = Finished::of(command).await;
    assert_eq!(output.code, Some(3), "{output:?}");
    assert!(output.stderr.contains("no instance \"nope\""), "{output:?}");
}

/// Another attempt would not change the response, so there is none.
#[tokio::test]
async fn a_registration_that_is_always_refused_is_refused_at_once() {
    let registry = Registry::start(&[]).await;
    let consul = waypost_testkit::Consul::start().await;
    let [unused] = free_ports();
    let unused = format!("127.0.0.1:{unused}");
    let too_long = format!("note={}", "x".repeat(600));
    let addresses = [registry.address.clone(), consul.address(), unused];
    for (arguments, reason) in [
        (["--meta", "a.b=c"], "the metadata key \"a.b\""),
        (["--meta", &too_long], "600 bytes: the limit is 512"),
        (["--meta", "consul-x=1"], "reserved"),
    ] {
        for address in &addresses {
            let mut command = waypost(&["register", "web", "--port", "1", "--timeout", "10m"]);
            command.args(arguments).args(["--registry", address]);
            let output = Finished::of(command).await;
            assert_eq!(output.code, Some(2), "{address}: {output:?}");
            assert!(output.stderr.contains(reason), "{address}: {output:?}");
        }
    }
    // Reasons that only the registry knows.
    for (arguments, reason) in [
        (&["--address", "0.0.0.0"][..], "Invalid service address"),
        (&["--check-tcp", "--interval", "0s"], "Interval must be > 0"),
    ] {
        let register = ["register", "web", "--port", "1", "--timeout", "10m"];
        let output = registry.run(&[&register[..], arguments].concat()).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains(reason), "{output:?}");
    }
}

#[tokio::test]
async fn deregistering_an_instance_in_another_namespace_is_an_error() {
    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    server.put(&waypost_fake_kubernetes::manifest::namespace("reg2"));
    let run = async |arguments: &[&str], namespace: &str| {
        let mut command = waypost(arguments);
        command
            .env("KUBECONFIG", server.kubeconfig())
            .env("KUBERNETES_NAMESPACE", namespace)
            .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes");
        Finished::of(command).await
    };
    let register = ["register", "web.reg2", "--port", "80", "--id", "w-1"];
    let registered = run(&[&register[..], &["--address", "10.0.0.7"]].concat(), "").await;
    assert_eq!(registered.code, Some(0), "{registered:?}");
    assert!(server.get("services", "reg2", "web").is_some());
    let elsewhere = run(&["deregister", "w-1"], "").await;
    assert_eq!(elsewhere.code, Some(3), "{elsewhere:?}");
    let expected = "set KUBERNETES_NAMESPACE if it is in another namespace";
    assert!(elsewhere.stderr.contains(expected), "{elsewhere:?}");
    let deregistered = run(&["deregister", "w-1"], "reg2").await;
    assert_eq!(deregistered.code, Some(0), "{deregistered:?}");
    assert_eq!(server.get("services", "reg2", "web"), None);
}

#[tokio::test]
async fn unknown_words_get_a_suggestion() {
    let registry = Registry::start(&[]).await;
    registry
        .register(json!({ "ID": "m-1", "Name": "ai-models", "Port": 80 }))
        .await;
    for (arguments, code, expected, unexpected) in [
        (&["serve", "x"][..], 2, "waypost up", "registry"),
        (&["sevices"], 2, "'services'", "'service'"),
        (&["instnaces", "x"], 2, "'instances'", "'resolve'"),
        (&["foo"], 2, "unrecognized", "similar"),
        (&["services", "--jsno"], 2, "--json", "--registry"),
        (&["instances", "ai-model"], 3, "did you mean ai-models?", ""),
        (&["resolve", "ai-modles"], 3, "did you mean ai-models?", ""),
        (&["explain", "ai-mdoels"], 3, "did you mean ai-models?", ""),
        (&["instances", "billing"], 3, "unknown", "did you mean"),
        (
            &["up", "--scale", "ai-models=three"],
            2,
            "N in NAME=N must be a number from 1",
            "invalid digit",
        ),
        (&["up", "--scale", "ui=0"], 2, "must be a number from 1", ""),
        (
            &["up", "--port", "ui=70000"],
            2,
            "PORT in NAME=PORT must be a number from 1 to 65535",
            "",
        ),
        (&["up", "--scale", "ui"], 2, "use NAME=N", ""),
        (
            &["up", "--scale", "ai-model=2"],
            1,
            "did you mean ai-models?",
            "",
        ),
    ] {
        let output = registry.run(arguments).await;
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        let stderr = &output.stderr;
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        let is_misleading = !unexpected.is_empty() && stderr.contains(unexpected);
        assert!(!is_misleading, "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn commands_of_other_tools_are_aliases() {
    let registry = Registry::start(&[]).await;
    let services = registry.run(&["services"]).await.stdout;
    for name in ["list", "ls"] {
        assert_eq!(registry.run(&[name]).await.stdout, services);
    }
    let status = registry.run(&["status"]).await;
    assert!(status.stdout.contains("responded in"), "{status:?}");
    let version = registry.run(&["version"]).await.stdout;
    assert_eq!(version, registry.run(&["--version"]).await.stdout);
}

#[tokio::test]
async fn an_error_is_one_line_that_says_what_to_do() {
    let [unused] = free_ports();
    let unused = format!("127.0.0.1:{unused}");
    let registry = Registry::start(&["--token", "secret"]).await;
    let web = not_a_registry().await;
    for (address, token, code, expected) in [
        (&unused, None, 4, "start one: waypost up"),
        (&web, None, 4, "no registry answers at"),
        (&registry.address, Some("wrong"), 5, "403"),
    ] {
        for arguments in [
            &["services"][..],
            &["instances", "web"],
            &["resolve", "web"],
            &["explain", "web"],
            &["watch", "web"],
            &["registry", "status"],
            &["register", "web", "--port", "1", "--timeout", "2s"],
        ] {
            let mut command = waypost(arguments);
            command.args(["--registry", address]);
            if let Some(token) = token {
                command.env("CONSUL_HTTP_TOKEN", token);
            }
            let output = Finished::of(command).await;
            assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
            let stderr = &output.stderr;
            assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
            assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        }
    }
}

/// A web server that is not a registry: it responds 404 with JSON to everything.
async fn not_a_registry() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let response = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n\
                                Content-Length: 20\r\nConnection: close\r\n\r\n\
                                {\"error\":\"not here\"}";
                let _ = stream.write_all(response.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn secrets_in_addresses_are_not_printed() {
    for (arguments, variable, value) in [
        (
            &["resolve", "web"][..],
            "SERVICE_WEB_URL",
            "http://u:PW@[bad",
        ),
        (&["resolve", "web"], "SERVICE_WEB_URL", "http://u:PW@web/"),
        (
            &["resolve", "web"],
            "SERVICE_WEB_URL",
            "http://web/?token=PW",
        ),
        (&["services"], "CONSUL_HTTP_ADDR", "http://h:8500/?token=PW"),
        (&["services"], "CONSUL_HTTP_ADDR", "u:PW@h:8500"),
        (
            &["service", "ai-models"],
            "AI_MODELS_UPSTREAM",
            "ftp://u:PW@h/",
        ),
    ] {
        let mut command = waypost(arguments);
        command.env(variable, value);
        let output = Finished::of(command).await;
        assert_ne!(output.code, Some(0), "{value}");
        assert!(output.stderr.contains(variable), "{value}: {output:?}");
        assert!(!output.stderr.contains("PW"), "{value}: {output:?}");
    }
    let output = Finished::of(waypost(&["services", "--registry", "http://u:PW@h/x"])).await;
    assert!(!output.stderr.contains("PW"), "{output:?}");
}

#[tokio::test]
async fn the_output_says_that_invalid_names_are_left_out() {
    let registry = Registry::start(&[]).await;
    for name in ["team/users", "my service", "web"] {
        registry
            .register(json!({ "ID": name, "Name": name, "Port": 80 }))
            .await;
    }
    let output = registry.run(&["services", "-o", "name"]).await;
    assert_eq!(output.stdout, "consul\nweb\n");
    for name in ["\"team/users\" is not valid", "\"my service\" is not valid"] {
        assert!(output.stderr.contains(name), "{output:?}");
    }
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    for command in ["instances", "watch"] {
        let output = registry.run(&[command, "team/users"]).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(output.stderr.contains("is not valid"), "{output:?}");
    }
}

#[tokio::test]
async fn a_check_requests_a_full_url_unchanged() {
    let registry = Registry::start(&[]).await;
    let url = "http://localhost:9001/health";
    let register = ["register", "orders", "--port", "9001", "--check-http", url];
    let output = registry.run(&register).await;
    assert_eq!(output.code, Some(0), "{output:?}");
    let checks = registry.get("/v1/agent/checks").await.to_string();
    assert!(!checks.contains("9001/http"), "{checks}");
    let found = eventually("the check has run", async || {
        let output = registry.run(&["instances", "orders"]).await.stdout;
        output.contains(url).then_some(output)
    })
    .await;
    assert!(!found.contains("9001/http"), "{found}");
}

#[tokio::test]
async fn heartbeats_report_the_health_of_the_service_not_of_the_command() {
    let registry = Registry::start(&[]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let health = async |expected: &str| {
        eventually(&format!("orders is {expected}"), async || {
            let output = registry.run(&["instances", "orders"]).await;
            output.stdout.contains(expected).then_some(output.stdout)
        })
        .await
    };
    let arguments = ["register", "orders", "--port", &port, "--hold"];
    let ttl = ["--check-ttl", "3s", "--address", "127.0.0.1"];
    let mut held = Program::start(registry.command(&[&arguments[..], &ttl].concat()));
    health("passing").await;
    drop(listener);
    health("refused").await;
    health("critical").await;
    held.interrupt();
    assert_eq!(held.wait_for_exit().await, Some(0), "{}", held.output());

    // With --check-http, the URL is checked instead of the port.
    let web = not_a_registry().await;
    let port = web.rsplit(':').next().unwrap();
    let arguments = ["register", "orders", "--port", port, "--hold"];
    let http = [&ttl[..], &["--check-http", "/health"]].concat();
    let mut held = Program::start(registry.command(&[&arguments[..], &http].concat()));
    health("critical").await;
    eventually("the agent has the output", async || {
        let checks = registry.get("/v1/agent/checks").await.to_string();
        checks.contains("status 404").then_some(())
    })
    .await;
    held.interrupt();
    assert_eq!(held.wait_for_exit().await, Some(0), "{}", held.output());
}

#[tokio::test]
async fn the_token_of_the_agent_can_be_read_from_a_file_and_an_empty_token_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "secret\n").unwrap();
    let file = file.to_str().unwrap();
    let registry = Registry::start(&["--token-file", file]).await;
    let status = async |token: &str| {
        let url = format!(
            "http://{}/v1/catalog/services?token={token}",
            registry.address
        );
        http().get(url).send().await.unwrap().status()
    };
    assert_eq!(status("wrong").await, 403);
    assert_eq!(status("secret").await, 200);
    let listed = registry
        .run(&["agent", "leftovers", "--token-file", file])
        .await;
    assert_eq!(listed.code, Some(0), "{listed:?}");

    let empty = directory.path().join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let mut command = waypost(&["agent", "--http-port", "1", "--token-file"]);
    command.arg(&empty);
    let output = Finished::of(command).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("is empty"), "{output:?}");

    let variables = [("WAYPOST_AGENT_TOKEN", ""), ("SERVICE_REGISTRY_PORT", "")];
    let open = Registry::start_with(&[], &variables).await;
    open.get("/v1/catalog/services").await;
    let mut command = open.command(&["explain", "consul"]);
    command.envs(["SERVICE_DISCOVERY_ZONE", "SERVICE_DISCOVERY_STRATEGY"].map(|name| (name, "")));
    command.env("SERVICE_DISCOVERY_ACTIVE_CHECK", "");
    let output = Finished::of(command).await;
    assert_ne!(output.code, Some(2), "{output:?}");
}
