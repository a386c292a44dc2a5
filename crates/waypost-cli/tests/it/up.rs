//! `waypost up`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use waypost_testkit::{Consul, free_ports};

use crate::support::*;

/// A stack that `waypost up` runs on free ports.
struct Stack {
    up: Program,
    registry: u16,
    gateway: u16,
    ui: u16,
    models: u16,
}

impl Stack {
    async fn start(arguments: &[&str]) -> Self {
        let mut stack = Self::spawn(arguments);
        stack.up.wait_for_output("API gateway   http").await;
        stack
    }

    /// Starts the stack with this registry, which is already running.
    fn spawn_on(registry: &str) -> Self {
        let [gateway, ui, models] = free_ports();
        let mut command = waypost(&["up", "--registry", registry]);
        for (name, port) in [("gateway", gateway), ("ui", ui), ("ai-models", models)] {
            command.args(["--port", &format!("{name}={port}")]);
        }
        Self {
            up: Program::start(command),
            registry: registry.rsplit(':').next().unwrap().parse().unwrap(),
            gateway,
            ui,
            models,
        }
    }

    fn spawn(arguments: &[&str]) -> Self {
        Self::spawn_with(arguments, &[])
    }

    /// Starts the stack with these environment variables.
    fn spawn_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let [registry, gateway, ui, models] = free_ports();
        let ports = [
            format!("registry={registry}"),
            format!("gateway={gateway}"),
            format!("ui={ui}"),
            format!("ai-models={models}"),
        ];
        let mut all = vec!["up"];
        for port in &ports {
            all.extend(["--port", port]);
        }
        all.extend(arguments);
        let mut command = waypost(&all);
        command.envs(variables.iter().copied());
        Self {
            up: Program::start(command),
            registry,
            gateway,
            ui,
            models,
        }
    }

    /// The IDs of a service's healthy instances, according to the registry.
    async fn passing(&self, service: &str) -> BTreeSet<String> {
        let path = format!("/v1/health/service/{service}?passing");
        let entries = get_json(&url(self.registry, &path)).await;
        let ids = entries.as_array().unwrap().iter();
        ids.map(|entry| entry["Service"]["ID"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Calls a model through the gateway; returns the status and the instance that served it.
    async fn infer(&self, http: &reqwest::Client) -> (u16, Option<String>) {
        let request = json!({"model": "sentiment", "input": "what a wonderful day"});
        let url = url(self.gateway, "/ai-models/api/inference");
        let response = http.post(url).json(&request).send().await.unwrap();
        let status = response.status().as_u16();
        let body: serde_json::Value = response.json().await.unwrap();
        (status, body["served_by"].as_str().map(str::to_owned))
    }

    /// Sends Ctrl-C, and checks that no process is left.
    async fn stop(mut self) {
        let all = descendants(self.up.pid());
        assert!(all.len() >= 3, "{all:?}");
        self.up.interrupt();
        assert_eq!(
            self.up.wait_for_exit().await,
            Some(0),
            "{}",
            self.up.output()
        );
        let left: Vec<_> = all.into_iter().filter(|pid| is_running(*pid)).collect();
        assert!(
            left.is_empty(),
            "still running: {left:?}\n{}",
            self.up.output()
        );
    }
}

/// Waits until a service has `wanted` healthy instances. Uses blocking queries, so it notices a
/// state however briefly it lasts.
async fn until_passing(registry: u16, service: &'static str, wanted: usize) {
    let mut index = "0".to_owned();
    loop {
        let path = format!("/v1/health/service/{service}?passing&wait=10s&index={index}");
        let response = http().get(url(registry, &path)).send().await.unwrap();
        index = response.headers()["x-consul-index"]
            .to_str()
            .unwrap()
            .into();
        let entries: serde_json::Value = response.json().await.unwrap();
        if entries.as_array().unwrap().len() == wanted {
            return;
        }
    }
}

fn url(port: u16, path: &str) -> String {
    format!("http://127.0.0.1:{port}{path}")
}

/// A listener on a free port, and the number of connections that it has accepted. It responds to each
/// request with this body.
async fn count_connections(body: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&accepted);
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(connection.read_u8().await?);
                }
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
                );
                connection.write_all((head + body).as_bytes()).await
            });
        }
    });
    (url, accepted)
}

#[tokio::test]
async fn the_proxy_in_the_environment_is_not_used_for_local_addresses() {
    let (proxy, asked) = count_connections("{}").await;
    let (upstream, _) = count_connections(r#"{"data": [{"id": "tiny-llm"}]}"#).await;
    let upstream = format!("{upstream}/v1");
    let mut stack = Stack::spawn_with(
        &[],
        &[
            ("HTTP_PROXY", &proxy),
            ("http_proxy", &proxy),
            ("HTTPS_PROXY", &proxy),
            ("ALL_PROXY", &proxy),
            ("AI_MODELS_UPSTREAM", &upstream),
        ],
    );
    stack.up.wait_for_output("API gateway   http").await;
    let models = get_json(&url(stack.ui, "/try/ai-models/api/models")).await;
    assert_eq!(models["upstream"]["status"], "available", "{models}");
    let services = waypost(&["services", "--registry", &url(stack.registry, "")])
        .env("HTTP_PROXY", &proxy)
        .output()
        .await
        .unwrap();
    assert!(services.status.success(), "{services:?}");
    stack.stop().await;
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn one_command_starts_the_stack_and_ctrl_c_stops_all_of_it() {
    let stack = Stack::start(&[]).await;
    let models = get_json(&url(stack.gateway, "/ai-models/api/models")).await;
    assert!(models["models"].as_array().unwrap().len() >= 2, "{models}");
    let (status, served_by) = stack.infer(&http()).await;
    assert_eq!(status, 200);
    assert!(
        stack
            .passing("ai-models")
            .await
            .contains(&served_by.unwrap())
    );

    for (port, path, text) in [
        (stack.ui, "/", "<html"),
        (stack.ui, "/try/ai-models/", "ask a model"),
        (stack.ui, "/api/stack", "ai-models"),
        (stack.ui, "/v1/catalog/services", "ai-models"),
        (stack.models, "/docs", "docs.js"),
        (stack.registry, "/ui/", "<html"),
        (stack.gateway, "/health", "passing"),
        (stack.gateway, "/ui/", "<html"),
    ] {
        let (status, body) = get(&url(port, path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.to_lowercase().contains(text), "{path}: {body}");
    }
    // The UI calls the models through the gateway, which it finds by name.
    let through_ui = get_json(&url(stack.ui, "/try/ai-models/api/models")).await;
    assert_eq!(through_ui["models"], models["models"]);

    let services = get_json(&url(stack.registry, "/v1/catalog/services")).await;
    for name in ["ai-models", "api-gateway", "ui"] {
        assert!(services.get(name).is_some(), "{services}");
    }
    stack.stop().await;
}

#[tokio::test]
async fn no_request_fails_after_an_instance_is_killed_and_it_is_restarted() {
    let stack = Stack::start(&["--scale", "ai-models=3"]).await;
    eventually("three instances are passing", async || {
        (stack.passing("ai-models").await.len() == 3).then_some(())
    })
    .await;
    let client = http();
    let mut served = BTreeSet::new();
    while served.len() < 3 {
        let (status, served_by) = stack.infer(&client).await;
        assert_eq!(status, 200);
        served.extend(served_by);
    }

    let victim_port = format!("--port {}", stack.models);
    let victim = descendant(stack.up.pid(), &victim_port);
    let leaving = tokio::spawn(until_passing(stack.registry, "ai-models", 2));
    signal(victim, Signal::KILL);
    // A POST that may have reached the instance can't be retried, because it may have been carried out.
    // That is one for each connection that the gateway's workers have kept open to the instance.
    let connections = std::thread::available_parallelism().map_or(2, usize::from);
    let (mut requests, mut broken) = (0, 0);
    eventually("the instance leaves and returns", async || {
        let (status, _) = stack.infer(&client).await;
        requests += 1;
        broken += usize::from(status == 502);
        assert!(
            status == 200 || (status == 502 && broken <= connections),
            "request {requests} after the kill: {status}, {broken} broken"
        );
        let passing = stack.passing("ai-models").await.len();
        (leaving.is_finished() && passing == 3 && requests >= 20).then_some(())
    })
    .await;
    leaving.await.unwrap();
    assert_ne!(descendant(stack.up.pid(), &victim_port), victim);

    let mut served = BTreeSet::new();
    eventually("all three instances serve requests again", async || {
        let (status, served_by) = stack.infer(&client).await;
        assert_eq!(status, 200);
        served.extend(served_by);
        (served.len() == 3).then_some(())
    })
    .await;
    stack.stop().await;
}

#[tokio::test]
async fn the_stack_runs_on_a_consul_started_by_up() {
    let stack = Stack::start(&["--registry", "consul"]).await;
    let (status, _) = stack.infer(&http()).await;
    assert_eq!(status, 200);
    let consul = std::env::var_os("CONSUL_BIN").unwrap_or_else(|| "consul".into());
    let listed = tokio::process::Command::new(consul)
        .args([
            "catalog",
            "services",
            "-http-addr",
            &format!("127.0.0.1:{}", stack.registry),
        ])
        .output()
        .await
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let services: BTreeSet<_> = listed.lines().collect();
    assert_eq!(
        services,
        BTreeSet::from(["ai-models", "api-gateway", "consul", "ui"])
    );
    stack.stop().await;
}

#[tokio::test]
async fn nothing_stays_registered_in_a_consul_that_was_already_running() {
    let consul = Consul::start().await;
    let mut up = Stack::spawn_on(&consul.address()).up;
    up.wait_for_output("API gateway   http").await;
    let catalog = consul.url("/v1/catalog/services");
    eventually("all are registered", async || {
        (get_json(&catalog).await.as_object().unwrap().len() == 4).then_some(())
    })
    .await;
    up.interrupt();
    assert_eq!(up.wait_for_exit().await, Some(0), "{}", up.output());
    // Consul's agent updates the catalog shortly after its response.
    eventually("nothing stays registered", async || {
        (get_json(&catalog).await == json!({"consul": []})).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_process_survives_a_killed_runner() {
    let mut stack = Stack::start(&["--scale", "ai-models=2"]).await;
    let all = descendants(stack.up.pid());
    signal(stack.up.pid(), Signal::KILL);
    stack.up.wait_for_exit().await;
    eventually("all are gone", async || {
        all.iter().all(|pid| !is_running(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_process_on_the_ipv6_localhost_is_reported_before_anything_starts() {
    let Ok(stranger) = std::net::TcpListener::bind("[::1]:0") else {
        return; // no IPv6 on this machine
    };
    let port = stranger.local_addr().unwrap().port();
    let mut stack = Stack::spawn(&["--check", "--port", &format!("registry={port}")]);
    assert_eq!(stack.up.wait_for_exit().await, Some(1));
    let output = stack.up.output();
    let pid = format!("pid {}", std::process::id());
    assert!(output.contains(&pid), "{output}");
    assert!(output.contains(&format!("[::1]:{port}")), "{output}");
    assert!(!output.contains("starting"), "{output}");
}

#[tokio::test]
async fn a_closed_terminal_stops_the_stack_in_order() {
    let consul = Consul::start().await;
    let address = consul.address();
    let mut stack = Stack::spawn_on(&address);
    stack.up.wait_for_output("API gateway   http").await;
    let all = descendants(stack.up.pid());
    signal(stack.up.pid(), Signal::HUP);
    let code = stack.up.wait_for_exit().await;
    assert_eq!(code, Some(0), "{}", stack.up.output());
    assert!(all.iter().all(|pid| !is_running(*pid)));
    let catalog = consul.url("/v1/catalog/services");
    eventually("nothing stays registered", async || {
        (get_json(&catalog).await == json!({"consul": []})).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_stack_keeps_running_when_its_output_is_closed() {
    let [registry, gateway, ui, models] = free_ports();
    let mut command = waypost(&["up"]);
    for (name, port) in [
        ("registry", registry),
        ("gateway", gateway),
        ("ui", ui),
        ("ai-models", models),
    ] {
        command.args(["--port", &format!("{name}={port}")]);
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdout(writer.try_clone().unwrap()).stderr(writer);
    let mut up = command.spawn().unwrap();
    let models = url(gateway, "/ai-models/api/models");
    eventually("the stack serves", async || {
        let response = http().get(&models).send().await.ok()?;
        response.status().is_success().then_some(())
    })
    .await;
    signal(up.id().unwrap().try_into().unwrap(), Signal::TERM);
    assert_eq!(up.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_reported_with_its_owner_before_anything_starts() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut stack = Stack::spawn(&["--port", &format!("ui={port}")]);
    assert_eq!(stack.up.wait_for_exit().await, Some(1));
    let output = stack.up.output();
    assert!(output.contains(&port.to_string()), "{output}");
    assert!(output.contains(&std::process::id().to_string()), "{output}");
    assert!(!output.contains("starting"), "{output}");
}
