//! A Consul agent.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::ports::free_ports;

/// A Consul agent on free ports of 127.0.0.1.
#[derive(Debug)]
pub struct Consul {
    ports: Ports,
    config: Value,
    is_dev: bool,
    directory: TempDir,
    process: Option<Child>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    http: u16,
    server: u16,
    serf_lan: u16,
    https: u16,
}

/// The token with all rights, for agents started with [`Consul::with_acl`].
pub const ROOT_TOKEN: &str = "0b1d0f4e-6c1c-4d0e-9c44-7f6a7f3c2d11";

/// The time limit for the election of a leader, which usually takes 0.3 s.
const START_TIMEOUT: Duration = Duration::from_secs(60);

impl Consul {
    /// Starts an agent in development mode, and waits until there is a leader.
    ///
    /// # Panics
    /// If Consul can't be started.
    pub async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// Like [`start`](Self::start), with additional configuration, which takes precedence over the
    /// default.
    ///
    /// # Panics
    /// The same as for [`start`](Self::start).
    pub async fn with(config: Value) -> Self {
        let mut consul = Self::prepare(config, true);
        consul.restart().await;
        consul
    }

    /// Like [`start`](Self::start), with ACLs that deny by default.
    ///
    /// # Panics
    /// The same as for [`start`](Self::start).
    pub async fn with_acl() -> Self {
        let acl = json!({
            "enabled": true,
            "default_policy": "deny",
            "tokens": { "master": ROOT_TOKEN, "agent": ROOT_TOKEN },
            // Short, so that deleting a token takes effect soon.
            "policy_ttl": "1s", "token_ttl": "1s", "role_ttl": "1s",
        });
        Self::with(json!({ "acl": acl })).await
    }

    /// An agent that is not started yet. It keeps its data across restarts unless `is_dev` is set.
    pub(crate) fn prepare(config: Value, is_dev: bool) -> Self {
        let [http, server, serf_lan, https] = free_ports();
        Self {
            ports: Ports {
                http,
                server,
                serf_lan,
                https,
            },
            config,
            is_dev,
            directory: tempfile::tempdir().expect("the directory should be created"),
            process: None,
        }
    }

    /// Adds configuration for the next start.
    pub(crate) fn add(&mut self, config: Value) {
        merge(&mut self.config, &config);
    }

    /// The address of the HTTP API, as `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.http)
    }

    /// The address of the HTTPS API, as `127.0.0.1:port`. It is served only if the configuration
    /// has a certificate.
    pub fn https_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.https)
    }

    /// The URL of a path of the HTTP API.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub(crate) fn gossip_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.serf_lan)
    }

    pub(crate) fn server_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.server)
    }

    /// Kills the agent. In development mode this deletes its data.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // This fails only if the process has exited.
            let _ = process.kill().await;
        }
    }

    /// Kills the agent if it is running, starts it on the same ports, and waits until there is a
    /// leader.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self) {
        self.spawn().await;
        self.wait_for_leader().await;
    }

    /// Like [`restart`](Self::restart), without waiting.
    pub(crate) async fn spawn(&mut self) {
        self.kill().await;
        let mut config = json!({
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "log_level": "err",
            "enable_script_checks": true,
            "ports": {
                "http": self.ports.http, "server": self.ports.server,
                "serf_lan": self.ports.serf_lan, "serf_wan": -1,
                "dns": -1, "grpc": -1,
                "https": if self.config.get("cert_file").is_some() { self.ports.https.into() }
                    else { json!(-1) },
            },
        });
        if !self.is_dev {
            config["data_dir"] = json!(self.directory.path().join("data"));
        }
        merge(&mut config, &self.config);
        let file = self.directory.path().join("agent.json");
        fs::write(&file, config.to_string()).expect("the file should be written");
        let mut command = Command::new(binary());
        command.arg("agent");
        if self.is_dev {
            command.arg("-dev");
        }
        let process = command
            .arg("-config-file")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        self.process = Some(process.unwrap_or_else(|error| {
            panic!("can't start Consul ({error}); run `cargo xtask setup`")
        }));
    }

    /// The address of the leader, if the agent knows one.
    pub async fn leader(&self) -> Option<String> {
        let request = http_client().get(self.url("/v1/status/leader"));
        let response = request.send().await.ok()?;
        let leader: String = serde_json::from_str(&response.text().await.ok()?).ok()?;
        (!leader.is_empty()).then_some(leader)
    }

    pub(crate) async fn wait_for_leader(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while self.leader().await.is_none() {
            let exited = self
                .process
                .as_mut()
                .and_then(|process| process.try_wait().ok().flatten());
            assert!(exited.is_none(), "Consul exited: {exited:?}");
            assert!(
                Instant::now() < deadline,
                "Consul has no leader after {START_TIMEOUT:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends JSON to a path of the API, with the root token, and returns the JSON of the response.
    /// Retries for a while, since an agent that has just started does not have its ACLs yet.
    ///
    /// # Panics
    /// If the request does not succeed.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let request = http_client()
                .put(self.url(path))
                .header("x-consul-token", ROOT_TOKEN)
                .json(body);
            let error = match request.send().await {
                Ok(response) if response.status().is_success() => {
                    let text = response.text().await.unwrap_or_default();
                    return serde_json::from_str(&text).unwrap_or(Value::Null);
                }
                Ok(response) => response.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            assert!(Instant::now() < deadline, "PUT {path}: {error}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Creates a token whose policy has these rules, and returns its secret.
    ///
    /// # Panics
    /// If the request does not succeed.
    pub async fn create_token(&self, name: &str, rules: &str) -> String {
        let policy = json!({ "Name": name, "Rules": rules });
        self.put("/v1/acl/policy", &policy).await;
        let token = json!({ "Policies": [{ "Name": name }] });
        let created = self.put("/v1/acl/token", &token).await;
        let secret = created["SecretID"].as_str();
        secret
            .expect("the response should have a secret")
            .to_owned()
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// An HTTP client for the requests of a test.
pub fn http_client() -> reqwest::Client {
    // A library must not install a crypto provider for the whole process, but a test fixture may.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build();
    client.expect("a client without settings can be created")
}

/// The binary that `CONSUL_BIN` names, which `cargo xtask test` sets, or else the one on `PATH`.
fn binary() -> PathBuf {
    std::env::var_os("CONSUL_BIN").map_or_else(|| "consul".into(), PathBuf::from)
}
