//! Registering programs outside of a Kubernetes cluster, and querying the cluster.

use serde_json::Value;
use tokio::process::Command;
use waypost_fake_kubernetes::{ApiServer, manifest};

use crate::support::*;

fn command(server: &ApiServer, arguments: &[&str]) -> Command {
    let mut command = waypost(arguments);
    command
        .env("KUBECONFIG", server.kubeconfig())
        .env("SERVICE_DISCOVERY_PROVIDER", "kubernetes");
    command
}

async fn run(server: &ApiServer, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = command(server, arguments).output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn an_instance_is_registered_found_and_deregistered() {
    let server = ApiServer::builder()
        .namespace("demo")
        .start()
        .await
        .unwrap();
    let register = [
        "register",
        "billing",
        "--port",
        "8080",
        "--address",
        "10.0.0.7",
    ];
    let details = [
        "--id",
        "b-1",
        "--service-version",
        "1.2",
        "--tag",
        "api",
        "--meta",
        "region=eu",
    ];
    let (code, id, _) = run(&server, &[&register[..], &details].concat()).await;
    assert_eq!((code, id.trim()), (Some(0), "b-1"));

    let (code, found, _) = run(&server, &["instances", "billing.demo", "--json"]).await;
    assert_eq!(code, Some(0));
    let found: Value = serde_json::from_str(&found).unwrap();
    let instance = &found["instances"][0];
    assert_eq!(instance["id"], "b-1");
    assert_eq!(instance["url"], "http://10.0.0.7:8080");
    assert_eq!(instance["version"], "1.2");
    assert_eq!(instance["tags"], serde_json::json!(["api"]));
    assert_eq!(instance["metadata"]["region"], "eu");

    // With `--hold` it stays registered only while the command runs.
    let hold = [&register[..5], &["10.0.0.8", "--id", "b-2", "--hold"]].concat();
    let mut held = Program::start(command(&server, &hold));
    held.wait_for_output("b-2").await;
    let (_, url, _) = run(&server, &["resolve", "billing", "--path", "/x"]).await;
    assert!(url.ends_with(":8080/x\n"), "{url}");
    held.interrupt();
    assert_eq!(held.wait_for_exit().await, Some(0));

    let (code, ..) = run(&server, &["deregister", "b-1"]).await;
    assert_eq!(code, Some(0));
    let (code, ..) = run(&server, &["instances", "billing"]).await;
    assert_eq!(code, Some(3));
    assert_eq!(server.get("services", "demo", "billing"), None);
}

#[tokio::test]
async fn errors_say_how_to_fix_them() {
    let server = ApiServer::builder()
        .namespace("demo")
        .start()
        .await
        .unwrap();
    let (code, _, stderr) = run(&server, &["register", "billing", "--port", "8080"]).await;
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("127.0.0.1") && stderr.contains("--address"),
        "{stderr}"
    );

    let anonymous = server.kubeconfig_of("anonymous").unwrap();
    for arguments in [
        &["services"][..],
        &["instances", "web"],
        &["registry", "status"],
    ] {
        let mut command = command(&server, arguments);
        let output = command
            .env("KUBECONFIG", &anonymous)
            .output()
            .await
            .unwrap();
        assert_eq!(output.status.code(), Some(5), "{arguments:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("no credentials"), "{arguments:?}: {stderr}");
    }

    server.add_user("ann");
    let kubeconfig = server.kubeconfig_of("ann").unwrap();
    let mut command = command(&server, &["services"]);
    let output = command
        .env("KUBECONFIG", &kubeconfig)
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("kind: RoleBinding") && stderr.contains("name: \"ann\""),
        "{stderr}"
    );
}

#[tokio::test]
async fn an_address_selects_instances_and_a_port() {
    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    let ports = [("http", 8080), ("admin", 9000)];
    server.put(&manifest::service("demo", "web", &ports));
    let pods = [manifest::endpoint("10.0.0.1")];
    server.put(&manifest::slice("demo", "web", "web-1", &ports, pods));
    for (address, expected) in [
        ("web", "http://10.0.0.1:8080\n"),
        (
            "https+http://web.demo/users",
            "http://10.0.0.1:8080/users\n",
        ),
        ("_admin.web.demo", "http://10.0.0.1:9000\n"),
        ("https+http://_admin.web.demo", "http://10.0.0.1:9000\n"),
    ] {
        let resolved = run(&server, &["resolve", address]).await;
        assert_eq!(
            (resolved.0, &*resolved.1),
            (Some(0), expected),
            "{resolved:?}"
        );
        let (_, found, _) = run(&server, &["instances", address, "--json"]).await;
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["instances"][0]["url"], expected.trim(), "{address}");
        let (_, watched, _) = run(&server, &["watch", address, "--count", "1"]).await;
        assert!(watched.contains(expected.trim()), "{watched}");
    }
    let with_path = ["resolve", "_admin.web", "--path", "/stats"];
    let (_, resolved, _) = run(&server, &with_path).await;
    assert_eq!(resolved, "http://10.0.0.1:9000/stats\n");
    for address in ["https://web", "_metrics.web"] {
        for command in ["resolve", "instances"] {
            let (code, _, stderr) = run(&server, &[command, address]).await;
            assert_eq!(code, Some(1), "{command} {address}");
            assert!(stderr.contains("no instance matches"), "{stderr}");
        }
    }
    let (code, _, stderr) = run(&server, &["resolve", "web:8080"]).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("leave the port out"), "{stderr}");
}

#[tokio::test]
async fn the_process_that_registers_an_instance_runs_its_check() {
    let server = ApiServer::builder()
        .namespace("demo")
        .start()
        .await
        .unwrap();
    let service = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = service.local_addr().unwrap().port().to_string();
    let arguments = [
        "register",
        "billing",
        "--port",
        &port,
        "--address",
        "10.0.0.7",
        "--id",
        "b-1",
        "--hold",
        "--check-http",
        &format!("http://127.0.0.1:{port}/health"),
    ];
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = service.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(response).await;
        }
    });
    let mut held = Program::start(command(&server, &arguments));
    held.wait_for_output("b-1").await;
    let is_ready = async || {
        let slice = server.get("endpointslices", "demo", "waypost-b-1");
        slice.map(|slice| slice["endpoints"][0]["conditions"]["ready"].clone())
    };
    assert_eq!(
        is_ready().await,
        Some(Value::Bool(true)),
        "{}",
        held.output()
    );
    assert!(
        !held.output().contains("runs no health checks"),
        "{}",
        held.output()
    );
    serving.abort();
    eventually("the instance is not ready", async || {
        (is_ready().await == Some(Value::Bool(false))).then_some(())
    })
    .await;
    held.interrupt();
    assert_eq!(held.wait_for_exit().await, Some(0));
}

/// The kubeconfig of a developer may point anywhere, so nothing is written without being asked.
#[tokio::test]
async fn a_gateway_registers_in_a_cluster_only_on_request() {
    let server = ApiServer::builder().namespace("demo").start();
    let server = server.await.unwrap();
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let [port] = waypost_testkit::free_ports().map(|port| port.to_string());
    let arguments = ["gateway", "--port", &port, "--internal", "off"];
    let mut gateway = Program::start(command(&server, &arguments));
    gateway
        .wait_for_output("the gateway does not register itself; see --register")
        .await;
    let url = format!("http://127.0.0.1:{port}");
    eventually("the gateway is ready", async || {
        let ready = http().get(format!("{url}/readyz")).send().await.ok()?;
        ready.status().is_success().then_some(())
    })
    .await;
    let web = http().get(format!("{url}/web/")).send().await.unwrap();
    assert_eq!(web.status(), 503, "known, without instances");
    gateway.interrupt();
    assert_eq!(gateway.wait_for_exit().await, Some(0));
    assert_eq!(server.get("services", "demo", "api-gateway"), None);
    let writes = server.requests();
    let mut writes = writes.iter().filter(|request| {
        let is_read = matches!(&*request.verb, "get" | "list" | "watch");
        // Reviews of the user's own rights are created, but nothing is stored.
        !is_read && !request.resource.starts_with("self")
    });
    assert!(writes.next().is_none(), "{:?}", server.requests());

    // If it must register, it says why it can't be registered with a loopback address.
    let always = [&arguments[..], &["--register", "always"]].concat();
    let (code, _, stderr) = run(&server, &always).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("127.0.0.1"), "{stderr}");
}
