//! Each program started by hand, as the manual set-up has it.

use waypost_testkit::free_ports;

use crate::support::*;

#[tokio::test]
async fn the_programs_find_each_other_without_the_runner() {
    let [registry, gateway, ui, models] = free_ports().map(|port| port.to_string());
    let mut agent = Program::start(waypost(&[
        "agent",
        "--http-port",
        &registry,
        "--dns-port",
        "0",
    ]));
    agent.says("/ui/").await;

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

    let url = format!("http://127.0.0.1:{gateway}/ai-models/api/models");
    eventually("the gateway finds the models", async || {
        let reply = http().get(&url).send().await.ok()?;
        reply.status().is_success().then_some(())
    })
    .await;
    eventually("the page finds the gateway", async || {
        let url = format!("http://127.0.0.1:{ui}/api/models");
        let reply = http().get(&url).send().await.ok()?;
        reply.status().is_success().then_some(())
    })
    .await;

    let catalog = format!("http://127.0.0.1:{registry}/v1/catalog/services");
    for mut program in programs {
        program.interrupt();
        assert_eq!(program.ends().await, Some(0), "{}", program.output());
    }
    assert_eq!(get_json(&catalog).await, serde_json::json!({"consul": []}));
    agent.interrupt();
    assert_eq!(agent.ends().await, Some(0));
}

#[tokio::test]
async fn a_taken_port_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for arguments in [
        &["gateway", "--port", &port][..],
        &["service", "ui", "--port", &port],
        &["service", "ai-models", "--port", &port],
        &["agent", "--http-port", &port],
    ] {
        let mut program = Program::start(waypost(arguments));
        assert_eq!(program.ends().await, Some(1), "{arguments:?}");
        let output = program.output();
        assert!(
            output.contains(&format!("127.0.0.1:{port}")),
            "{arguments:?}: {output}"
        );
    }
}
