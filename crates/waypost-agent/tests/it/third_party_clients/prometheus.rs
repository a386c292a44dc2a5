//! Prometheus with `consul_sd_configs`.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use waypost_agent::Agent;
use waypost_testkit::free_ports;

use super::{program, put, start, until};
use crate::raw_http::Request;

const TOKEN: &str = "let-me-in";

struct Prometheus {
    api: SocketAddr,
    _process: Child,
    _folder: TempDir,
}

impl Prometheus {
    fn start(agent: SocketAddr) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, configuration(agent)).unwrap();
        let [port] = free_ports();
        let api = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = Command::new(program("WAYPOST_PROMETHEUS", "bin/prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().display()))
            .arg(format!("--web.listen-address={api}"));
        Self {
            api,
            _process: start(&mut command),
            _folder: folder,
        }
    }

    /// The targets of a job, before relabelling.
    async fn targets(&self, job: &str) -> Vec<Value> {
        let request = Request::new("GET", "/api/v1/targets?state=active", "");
        let Ok(response) = request.send(self.api).await else {
            return Vec::new();
        };
        let response: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let targets = response["data"]["activeTargets"].as_array().cloned();
        let labels = targets.unwrap_or_default().into_iter();
        let labels = labels.map(|target| target["discoveredLabels"].clone());
        labels.filter(|labels| labels["job"] == job).collect()
    }

    async fn addresses(&self, job: &str) -> Vec<String> {
        let targets = self.targets(job).await;
        let address = |labels: &Value| {
            labels["__address__"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let mut addresses: Vec<_> = targets.iter().map(address).collect();
        addresses.sort();
        addresses
    }

    async fn until(&self, job: &str, expected: &[&str]) {
        until(&format!("{job} has {expected:?}"), async || {
            (self.addresses(job).await == expected).then_some(())
        })
        .await;
    }
}

fn configuration(agent: SocketAddr) -> String {
    let job = |name: &str, more: &str| {
        format!(
            "- job_name: {name}\n  consul_sd_configs:\n  - server: {agent}\n    token: {TOKEN}\n    \
             refresh_interval: 1s\n    {more}\n"
        )
    };
    let jobs = [
        job("everything", "allow_stale: false"),
        job("web", "services: [web]"),
        job("tagged", "services: [web]\n    tags: [v2]"),
        job("here", "node_meta: {rack: r1}"),
        job("elsewhere", "node_meta: {rack: r2}"),
    ];
    format!("scrape_configs:\n{}", jobs.concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_follows_registrations() {
    let agent = Agent::builder()
        .token(TOKEN)
        .node_name("n1")
        .node_meta("rack", "r1")
        .start()
        .await
        .unwrap();
    let address = agent.http_addr();
    let register = "/v1/agent/service/register";
    for body in [
        r#"{"ID":"w1","Name":"web","Tags":["v1","a"],"Address":"10.0.0.1","Port":81,"Meta":{"k":"v"}}"#,
        r#"{"ID":"w2","Name":"web","Tags":["v2"],"Port":82}"#,
        r#"{"Name":"db","Port":5432}"#,
    ] {
        put(address, TOKEN, register, body).await;
    }
    let prometheus = Prometheus::start(address);
    let all = [
        "10.0.0.1:81",
        "127.0.0.1:5432",
        "127.0.0.1:82",
        "127.0.0.1:8300",
    ];
    prometheus.until("everything", &all).await;
    prometheus.until("here", &all).await;
    prometheus
        .until("web", &["10.0.0.1:81", "127.0.0.1:82"])
        .await;
    prometheus.until("tagged", &["127.0.0.1:82"]).await;
    prometheus.until("elsewhere", &[]).await;

    let targets = prometheus.targets("web").await;
    let of_first = |labels: &&Value| labels["__meta_consul_service_id"] == "w1";
    let labels = targets.iter().find(of_first).unwrap();
    for (name, value) in [
        ("dc", "dc1"),
        ("node", "n1"),
        ("address", "127.0.0.1"),
        ("metadata_rack", "r1"),
        ("tagged_address_lan", "127.0.0.1"),
        ("service", "web"),
        ("service_address", "10.0.0.1"),
        ("service_port", "81"),
        ("service_metadata_k", "v"),
        ("tags", ",v1,a,"),
    ] {
        assert_eq!(labels[format!("__meta_consul_{name}")], value, "{name}");
    }

    // Register and deregister one instance. The others stay.
    put(
        address,
        TOKEN,
        register,
        r#"{"ID":"w3","Name":"web","Port":83}"#,
    )
    .await;
    let three = ["10.0.0.1:81", "127.0.0.1:82", "127.0.0.1:83"];
    prometheus.until("web", &three).await;
    put(address, TOKEN, "/v1/agent/service/deregister/w3", "").await;
    prometheus.until("web", &three[..2]).await;
    put(address, TOKEN, "/v1/agent/service/deregister/db", "").await;
    prometheus
        .until("everything", &[all[0], all[2], all[3]])
        .await;
}
