//! Each program of the stack started on its own, without `waypost up`.

use waypost_testkit::free_ports;

use crate::support::*;

#[tokio::test]
async fn programs_find_each_other_without_the_runner() {
    let [registry, gateway, ui, models] = free_ports().map(|port| port.to_string());
    let mut agent = Program::start(waypost(&[
        "agent",
        "--http-port",
        &registry,
        "--dns-port",
        "0",
    ]));
    agent.wait_for_output("/ui/").await;

    let start = |arguments: &[&str]| {
        let mut command = waypost(arguments);
        command
            .env("SERVICE_REGISTRY_HOST", "localhost")
            .env("SERVICE_REGISTRY_PORT", &registry)
            .env("ENVIRONMENT", "development");
        Program::start(command)
    };
    let programs = [
        start(&["gateway", "--port", &gateway]),
        start(&["service", "ui", "--port", &ui]),
        start(&["service", "ai-models", "--port", &models]),
    ];

    for url in [
        format!("http://127.0.0.1:{gateway}/ai-models/api/models"),
        format!("http://127.0.0.1:{ui}/api/models"),
    ] {
        eventually(&format!("{url} responds"), async || {
            let response = http().get(&url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
    }

    let catalog = format!("http://127.0.0.1:{registry}/v1/catalog/services");
    for mut program in programs {
        program.interrupt();
        let code = program.wait_for_exit().await;
        assert_eq!(code, Some(0), "{}", program.output());
    }
    assert_eq!(get_json(&catalog).await, serde_json::json!({"consul": []}));
    agent.interrupt();
    assert_eq!(agent.wait_for_exit().await, Some(0));
}

#[tokio::test]
async fn a_gateway_writes_its_access_log_as_text_or_json() {
    for (format, expected) in [
        ("text", "access method=GET path=\"/none/\""),
        ("json", "\"path\":\"/none/\""),
    ] {
        let [port] = free_ports();
        let mut command = waypost(&["gateway", "--internal", "off", "--access-log", "-"]);
        command
            .args(["--access-log-format", format, "--port"])
            .arg(port.to_string())
            .env("SERVICE_WEB_URL", "http://127.0.0.1:9");
        let mut gateway = Program::start(command);
        let url = format!("http://127.0.0.1:{port}/none/");
        eventually("a response", async || http().get(&url).send().await.ok()).await;
        gateway.wait_for_output(expected).await;
    }
}

#[tokio::test]
async fn the_error_for_a_port_in_use_names_the_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for arguments in [
        &["gateway", "--port", &port][..],
        &["service", "ui", "--port", &port],
        &["service", "ai-models", "--port", &port],
        &["agent", "--http-port", &port],
    ] {
        let mut program = Program::start(waypost(arguments));
        assert_eq!(program.wait_for_exit().await, Some(1), "{arguments:?}");
        let output = program.output();
        assert!(
            output.contains(&format!("127.0.0.1:{port}")),
            "{arguments:?}: {output}"
        );
        let holder = format!("in use by pid {}", std::process::id());
        assert!(output.contains(&holder), "{arguments:?}: {output}");
        let option = if arguments[0] == "agent" {
            "--http-port"
        } else {
            "--port"
        };
        assert!(output.contains(option), "{arguments:?}: {output}");
    }
}

#[tokio::test]
async fn each_sample_service_has_its_own_default_port() {
    for (name, port) in [("ai-models", "8002"), ("ui", "3000")] {
        let help = waypost(&["service", name, "--help"]).output().await;
        let help = String::from_utf8(help.unwrap().stdout).unwrap();
        assert!(help.contains(&format!("[default: {port}]")), "{help}");
    }
}
