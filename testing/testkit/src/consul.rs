use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::free_ports;

/// A real Consul agent on ports of its own.
#[derive(Debug)]
pub struct Consul {
    ports: Ports,
    config: Value,
    is_dev: bool,
    folder: TempDir,
    process: Option<Child>,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    http: u16,
    server: u16,
    serf_lan: u16,
    https: u16,
}

/// The token that may do everything, of agents started with [`Consul::with_acl`].
pub const ROOT_TOKEN: &str = "0b1d0f4e-6c1c-4d0e-9c44-7f6a7f3c2d11";

/// How long it may take until it has a leader; usually it takes 0.3 s.
const START_WITHIN: Duration = Duration::from_secs(60);

impl Consul {
    /// Starts one in development mode and waits until it has a leader.
    ///
    /// # Panics
    /// If there is no Consul, or it doesn't start.
    pub async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// The same with more configuration, which outweighs what is said otherwise.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with(config: Value) -> Self {
        let mut consul = Self::prepare(config, true);
        consul.restart().await;
        consul
    }

    /// One with ACLs that deny whatever no token allows.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn with_acl() -> Self {
        let acl = json!({
            "enabled": true,
            "default_policy": "deny",
            "tokens": { "master": ROOT_TOKEN, "agent": ROOT_TOKEN },
            // Short, so that a token that was deleted is soon unknown.
            "policy_ttl": "1s", "token_ttl": "1s", "role_ttl": "1s",
        });
        Self::with(json!({ "acl": acl })).await
    }

    /// One that has not been started yet; not in development mode it keeps what it knows.
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
            folder: tempfile::tempdir().expect("a temporary folder"),
            process: None,
        }
    }

    /// Adds to the configuration of the next start.
    pub(crate) fn add(&mut self, config: Value) {
        merge(&mut self.config, &config);
    }

    /// `127.0.0.1:port`, where its HTTP API is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.http)
    }

    /// `127.0.0.1:port`, where its HTTPS API is, if its configuration has certificates.
    pub fn https_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.https)
    }

    /// The URL of a path of its HTTP API.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub(crate) fn gossip_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.serf_lan)
    }

    pub(crate) fn server_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.server)
    }

    /// Kills it. In development mode it remembers nothing.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // An error means that it has ended by itself.
            let _ = process.kill().await;
        }
    }

    /// Starts it again at the same address; in development mode with nothing remembered.
    ///
    /// # Panics
    /// If it doesn't start.
    pub async fn restart(&mut self) {
        self.begin().await;
        self.wait_for_leader().await;
    }

    /// Starts it without waiting.
    pub(crate) async fn begin(&mut self) {
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
            config["data_dir"] = json!(self.folder.path().join("data"));
        }
        merge(&mut config, &self.config);
        let file = self.folder.path().join("agent.json");
        fs::write(&file, config.to_string()).expect("a file in a temporary folder");
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
            panic!("Consul can't be started ({error}); run `cargo xtask setup`")
        }));
    }

    /// The address of the leader as it sees it, if it sees one.
    pub async fn leader(&self) -> Option<String> {
        let request = http_client().get(self.url("/v1/status/leader"));
        let reply = request.send().await.ok()?;
        let leader: String = serde_json::from_str(&reply.text().await.ok()?).ok()?;
        (!leader.is_empty()).then_some(leader)
    }

    pub(crate) async fn wait_for_leader(&mut self) {
        let deadline = Instant::now() + START_WITHIN;
        while self.leader().await.is_none() {
            let ended = self
                .process
                .as_mut()
                .and_then(|process| process.try_wait().ok().flatten());
            assert!(ended.is_none(), "Consul ended at once: {ended:?}");
            assert!(
                Instant::now() < deadline,
                "Consul has no leader after {START_WITHIN:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends JSON to a path of its API, with the root token, and gives what it answers.
    ///
    /// # Panics
    /// If the answer is no success.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let request = http_client()
                .put(self.url(path))
                .header("x-consul-token", ROOT_TOKEN)
                .json(body);
            let failed = match request.send().await {
                Ok(reply) if reply.status().is_success() => {
                    let text = reply.text().await.unwrap_or_default();
                    return serde_json::from_str(&text).unwrap_or(Value::Null);
                }
                Ok(reply) => reply.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            // Right after the start its ACLs are not there yet.
            assert!(Instant::now() < deadline, "PUT {path}: {failed}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Makes a token whose policy has these rules, and gives its secret.
    ///
    /// # Panics
    /// If that can't be done.
    pub async fn token(&self, name: &str, rules: &str) -> String {
        let policy = json!({ "Name": name, "Rules": rules });
        self.put("/v1/acl/policy", &policy).await;
        let token = json!({ "Policies": [{ "Name": name }] });
        let made = self.put("/v1/acl/token", &token).await;
        made["SecretID"].as_str().expect("a token").to_owned()
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

/// A plain HTTP client for what a test itself asks.
pub fn http_client() -> reqwest::Client {
    // The one thing a library must not do for a program, a test's helper may: choose the
    // cryptography of the whole process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// `cargo xtask test` names it; at a desk the one on `PATH` will do.
fn binary() -> PathBuf {
    std::env::var_os("CONSUL_BIN").map_or_else(|| "consul".into(), PathBuf::from)
}
