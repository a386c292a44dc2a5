//! The manifests and systemd units of the stack on Consul.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tokio::process::Command;
use waypost_testkit::free_ports;

use super::manifests::*;
use crate::support::*;

const DIRECTORY: &str = "consul/kubernetes";
const REPLICAS: usize = 3;

#[test]
fn every_file_is_listed_and_matches_its_kubernetes_type() {
    let listed = kustomization(DIRECTORY);
    assert!(!documents(DIRECTORY).is_empty());
    for entry in fs::read_dir(deploy(DIRECTORY)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The policy is for Consul.
        let is_listed = listed.to_string().contains(&format!("\"{name}\""));
        let is_other = ["kustomization.yaml", "service-policy.hcl"].contains(&name.as_str());
        assert!(is_listed || is_other, "{name}");
    }
    let text = fs::read_to_string(deploy(DIRECTORY).join("sidecar.yaml")).unwrap();
    // It is a patch for a Deployment, so it is checked as part of a complete pod.
    let patch: Value = serde_saphyr::from_str(&text).unwrap();
    let pod = &patch["spec"]["template"]["spec"];
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {},
        "spec": { "containers": [], "initContainers": pod["initContainers"], "volumes": pod["volumes"] },
    });
    parse(&pod).map(drop).unwrap();
}

#[test]
fn the_systemd_units_use_valid_arguments() {
    let directory = deploy("consul/systemd");
    let unit = fs::read_to_string(directory.join("waypost@.service")).unwrap();
    assert!(unit.contains("ExecStart=/usr/local/bin/waypost $ARGUMENTS"));
    let common = fs::read_to_string(directory.join("common.env")).unwrap();
    assert!(common.contains("\nCONSUL_HTTP_ADDR=http://127.0.0.1:8500"));
    for name in ["api-gateway", "ui", "ai-models"] {
        let text = fs::read_to_string(directory.join(format!("{name}.env"))).unwrap();
        let arguments = text.trim().strip_prefix("ARGUMENTS=").unwrap();
        let mut arguments: Vec<_> = arguments.split(' ').collect();
        // The arguments before it are parsed first, and an invalid one is an error.
        arguments.push("--help");
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_waypost"))
            .args(&arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// Runs the cluster on this machine, with the files and arguments of the manifests. Only addresses,
/// directories and the HTTP port differ, since here they are shared by all agents.
#[tokio::test]
async fn the_agents_form_a_cluster_that_services_register_with() {
    let directory = tempfile::tempdir().unwrap();
    let cluster = directory.path().join("cluster");
    let mut config = waypost(&["registry", "config", "--out", &text(&cluster)]);
    config.args(["--server", "127.0.0.1"].repeat(REPLICAS));
    let written = config.args(["--client", "127.0.0.1"]).output().await;
    assert!(written.unwrap().status.success());

    let servers = arguments("servers.yaml", "/spec/template/spec/containers/0");
    let sidecar = arguments("sidecar.yaml", "/spec/template/spec/initContainers/0");
    let pods = Pods::new(directory.path());
    let mut agents = Vec::new();
    for number in 0..REPLICAS {
        let name = format!("consul-server-{number}");
        agents.push(pods.start(&servers, &name, number, &cluster.join("server-1")));
    }
    let client = REPLICAS;
    agents.push(pods.start(&sidecar, "ai-models-x", client, &cluster.join("client-1")));

    let first = pods.api(0);
    let secrets = text(&cluster.join("secrets"));
    let bootstrap = [
        "registry",
        "bootstrap",
        "--secrets",
        &secrets,
        "--address",
        &first,
        "--timeout",
        "2m",
    ];
    let done = waypost(&bootstrap).output().await.unwrap();
    assert!(done.status.success(), "{done:?}\n{}", agents[0].output());
    let token = pods.service_token(&cluster).await;

    let [port] = free_ports();
    let mut models = waypost(&["service", "ai-models", "--port", &port.to_string()]);
    models.env("CONSUL_HTTP_ADDR", pods.api(client));
    models.env("CONSUL_HTTP_TOKEN", &token);
    let mut models = Program::start(models);
    models.wait_for_output("registered").await;
    eventually("a server lists the healthy instance", async || {
        let mut command = waypost(&["resolve", "ai-models"]);
        command.env("CONSUL_HTTP_ADDR", pods.api(0));
        let output = command
            .env("CONSUL_HTTP_TOKEN", &token)
            .output()
            .await
            .ok()?;
        let url = format!("http://127.0.0.1:{port}");
        (String::from_utf8_lossy(&output.stdout).trim() == url).then_some(())
    })
    .await;

    models.interrupt();
    assert_eq!(models.wait_for_exit().await, Some(0), "{}", models.output());
    for agent in agents.iter_mut().rev() {
        agent.interrupt();
    }
    for mut agent in agents {
        agent.wait_for_exit().await;
    }
}

/// Starts agents as in pods. Each has a different address in 127.0.0.0/8.
struct Pods<'a> {
    directory: &'a Path,
    network: String,
    ports: [u16; REPLICAS + 1],
}

impl<'a> Pods<'a> {
    fn new(directory: &'a Path) -> Self {
        let pid = std::process::id();
        Self {
            directory,
            // Differs between test processes that run at the same time.
            network: format!("127.{}.{}", 1 + (pid >> 8) % 254, pid % 256),
            ports: free_ports(),
        }
    }

    fn address(&self, number: usize) -> String {
        format!("{}.{}", self.network, 1 + number)
    }

    fn api(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[number])
    }

    /// Starts the agent of a pod.
    fn start(&self, arguments: &[String], name: &str, number: usize, keys: &Path) -> Program {
        let data = self.directory.join(name);
        let secrets = self.directory.join(format!("secrets-{name}"));
        let config = self.directory.join(format!("config-{name}"));
        let localize = |text: &str| {
            let mut text = text
                .replace("/consul/config", &config.display().to_string())
                .replace("/consul/secrets", &secrets.display().to_string())
                .replace("/consul/data", &data.display().to_string())
                .replace("$(POD_NAME)", name)
                .replace("$(POD_IP)", &self.address(number));
            for server in 0..REPLICAS {
                let dns = format!("consul-server-{server}.consul-server");
                text = text.replace(&dns, &self.address(server));
            }
            text
        };
        for (from, to) in [(deploy(DIRECTORY), &config), (keys.to_owned(), &secrets)] {
            fs::create_dir(to).unwrap();
            for entry in fs::read_dir(from).unwrap() {
                let from = entry.unwrap().path();
                let content = fs::read_to_string(&from).unwrap();
                fs::write(to.join(from.file_name().unwrap()), localize(&content)).unwrap();
            }
        }
        let program = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".into());
        let mut command = Command::new(program);
        command
            .args(arguments.iter().map(|argument| localize(argument)))
            .arg(format!("-http-port={}", self.ports[number]))
            .kill_on_drop(true);
        Program::start(command)
    }

    /// Creates a token with the policy that belongs to the manifests.
    async fn service_token(&self, cluster: &Path) -> String {
        let rules = fs::read_to_string(deploy(DIRECTORY).join("service-policy.hcl")).unwrap();
        let root = fs::read_to_string(cluster.join("secrets/root-token")).unwrap();
        let create = async |kind: &str, body: Value| {
            let url = format!("{}/v1/acl/{kind}", self.api(0));
            let request = http().put(url).header("x-consul-token", root.trim());
            let response = request.json(&body).send().await.unwrap();
            let response = response.error_for_status().unwrap();
            response.json::<Value>().await.unwrap()
        };
        create(
            "policy",
            serde_json::json!({ "Name": "waypost", "Rules": rules }),
        )
        .await;
        let token = serde_json::json!({ "Policies": [{ "Name": "waypost" }] });
        let token = create("token", token).await;
        token["SecretID"].as_str().unwrap().to_owned()
    }
}

/// The arguments of a container in a manifest.
fn arguments(file: &str, container: &str) -> Vec<String> {
    let text = fs::read_to_string(deploy(DIRECTORY).join(file)).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let container = all.iter().find_map(|document| document.pointer(container));
    let arguments = container.unwrap()["args"].as_array().unwrap().iter();
    arguments
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
