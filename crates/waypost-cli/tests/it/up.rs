//! `waypost up`: the main job.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::json;
use waypost_testkit::{Consul, free_ports};

use crate::support::*;

/// A stack on ports of its own.
struct Stack {
    up: Program,
    registry: u16,
    gateway: u16,
    ui: u16,
    models: u16,
}

impl Stack {
    async fn start(arguments: &[&str]) -> Self {
        let mut stack = Self::begin(arguments);
        stack.up.says("API gateway   http").await;
        stack
    }

    fn begin(arguments: &[&str]) -> Self {
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
        Self {
            up: Program::start(waypost(&all)),
            registry,
            gateway,
            ui,
            models,
        }
    }

    /// The ids of the instances of a service that the registry calls healthy.
    async fn passing(&self, service: &str) -> BTreeSet<String> {
        let path = format!("/v1/health/service/{service}?passing");
        let entries = get_json(&url(self.registry, &path)).await;
        let ids = entries.as_array().unwrap().iter();
        ids.map(|entry| entry["Service"]["ID"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Asks a model through the gateway; gives the status and who answered.
    async fn ask(&self, http: &reqwest::Client) -> (u16, Option<String>) {
        let question = json!({"model": "sentiment", "input": "what a wonderful day"});
        let address = url(self.gateway, "/ai-models/api/inference");
        let reply = http.post(address).json(&question).send().await.unwrap();
        let status = reply.status().as_u16();
        let answer: serde_json::Value = reply.json().await.unwrap();
        (status, answer["served_by"].as_str().map(str::to_owned))
    }

    /// Ctrl-C; nothing may be left.
    async fn end(mut self) {
        let all = descendants(self.up.pid());
        assert!(all.len() >= 3, "{all:?}");
        self.up.interrupt();
        assert_eq!(self.up.ends().await, Some(0), "{}", self.up.output());
        let left: Vec<_> = all.into_iter().filter(|pid| lives(*pid)).collect();
        assert!(
            left.is_empty(),
            "left behind: {left:?}\n{}",
            self.up.output()
        );
    }
}

/// Follows a service until the registry calls so many of its instances healthy, however shortly.
async fn until_passing(registry: u16, service: &'static str, wanted: usize) {
    let mut index = "0".to_owned();
    loop {
        let path = format!("/v1/health/service/{service}?passing&wait=10s&index={index}");
        let reply = http().get(url(registry, &path)).send().await.unwrap();
        index = reply.headers()["x-consul-index"].to_str().unwrap().into();
        let entries: serde_json::Value = reply.json().await.unwrap();
        if entries.as_array().unwrap().len() == wanted {
            return;
        }
    }
}

fn url(port: u16, path: &str) -> String {
    format!("http://127.0.0.1:{port}{path}")
}

#[tokio::test]
async fn one_command_brings_a_discovered_stack_to_life_and_ctrl_c_leaves_nothing() {
    let stack = Stack::start(&[]).await;
    let models = get_json(&url(stack.gateway, "/ai-models/api/models")).await;
    assert!(models["models"].as_array().unwrap().len() >= 2, "{models}");
    let (status, served_by) = stack.ask(&http()).await;
    assert_eq!(status, 200);
    assert!(
        stack
            .passing("ai-models")
            .await
            .contains(&served_by.unwrap())
    );

    for (port, path, text) in [
        (stack.ui, "/", "<html"),
        (stack.models, "/docs", "swagger"),
        (stack.registry, "/ui/", "<html"),
        (stack.gateway, "/internal/health", "passing"),
        (stack.gateway, "/internal/routes", "ai-models"),
        (stack.gateway, "/ui/", "<html"),
    ] {
        let (status, body) = get(&url(port, path)).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.to_lowercase().contains(text), "{path}: {body}");
    }
    // The page's own way to the models: it has found the gateway by its name.
    let through_ui = get_json(&url(stack.ui, "/api/models")).await;
    assert_eq!(through_ui["models"], models["models"]);

    let services = get_json(&url(stack.registry, "/v1/catalog/services")).await;
    for name in ["ai-models", "api-gateway", "ui"] {
        assert!(services.get(name).is_some(), "{services}");
    }
    stack.end().await;
}

#[tokio::test]
async fn a_killed_instance_is_missed_by_nobody_and_comes_back() {
    let stack = Stack::start(&["--scale", "ai-models=3"]).await;
    eventually("three instances are passing", async || {
        (stack.passing("ai-models").await.len() == 3).then_some(())
    })
    .await;
    let client = http();
    let mut answered = BTreeSet::new();
    while answered.len() < 3 {
        let (status, served_by) = stack.ask(&client).await;
        assert_eq!(status, 200);
        answered.extend(served_by);
    }

    let victim_port = format!("--port {}", stack.models);
    let victim = descendant(stack.up.pid(), &victim_port);
    let leaving = tokio::spawn(until_passing(stack.registry, "ai-models", 2));
    signal(victim, Signal::KILL);
    // A second at least in which everything is asked, and until both has been seen: the dead one
    // leaves, and it comes back.
    let mut requests = 0;
    let killed = SystemTime::now();
    eventually("it left the passing instances and came back", async || {
        let began = killed.elapsed().unwrap();
        let (status, _) = stack.ask(&client).await;
        requests += 1;
        // A POST that was already with the dying instance can't be sent again: whether it was
        // carried out nobody knows. After that none may fail.
        let first_second = began < Duration::from_secs(1);
        assert!(
            status == 200 || (first_second && status == 502),
            "request {requests}, {began:?} after the kill: {status}"
        );
        let passing = stack.passing("ai-models").await.len();
        (leaving.is_finished() && passing == 3 && !first_second).then_some(())
    })
    .await;
    leaving.await.unwrap();
    assert_ne!(descendant(stack.up.pid(), &victim_port), victim);

    let mut answered = BTreeSet::new();
    eventually("all three answer again", async || {
        let (status, served_by) = stack.ask(&client).await;
        assert_eq!(status, 200);
        answered.extend(served_by);
        (answered.len() == 3).then_some(())
    })
    .await;
    stack.end().await;
}

#[tokio::test]
async fn the_same_stack_runs_on_a_consul_that_up_starts() {
    let stack = Stack::start(&["--registry", "consul"]).await;
    let (status, _) = stack.ask(&http()).await;
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
    stack.end().await;
}

#[tokio::test]
async fn on_a_consul_that_runs_already_nothing_stays_registered() {
    let consul = Consul::start().await;
    let address = consul.address();
    let [gateway, ui, models] = free_ports();
    let ports = [
        format!("gateway={gateway}"),
        format!("ui={ui}"),
        format!("ai-models={models}"),
    ];
    let mut arguments = vec!["up", "--registry", &address];
    for port in &ports {
        arguments.extend(["--port", port]);
    }
    let mut up = Program::start(waypost(&arguments));
    up.says("API gateway   http").await;
    let catalog = consul.url("/v1/catalog/services");
    eventually("all are registered", async || {
        (get_json(&catalog).await.as_object().unwrap().len() == 4).then_some(())
    })
    .await;
    up.interrupt();
    assert_eq!(up.ends().await, Some(0), "{}", up.output());
    // Consul's agent tells its catalog a moment after it has answered.
    eventually("nothing stays registered", async || {
        (get_json(&catalog).await == json!({"consul": []})).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_killed_runner_leaves_no_process_behind() {
    let mut stack = Stack::start(&["--scale", "ai-models=2"]).await;
    let all = descendants(stack.up.pid());
    signal(stack.up.pid(), Signal::KILL);
    stack.up.ends().await;
    eventually("all are gone", async || {
        all.iter().all(|pid| !lives(*pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_taken_port_is_told_with_its_holder_before_anything_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut stack = Stack::begin(&["--port", &format!("ui={port}")]);
    assert_eq!(stack.up.ends().await, Some(1));
    let output = stack.up.output();
    assert!(output.contains(&port.to_string()), "{output}");
    assert!(output.contains(&std::process::id().to_string()), "{output}");
    assert!(!output.contains("starting"), "{output}");
}
