use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::super::Outcome;
use crate::failure::Failure;

/// Give the agents of a new cluster the rights that they need
///
/// Once, after the servers of `waypost registry config` have started: makes the policy and the
/// token that the agents' configuration names. Doing it again does no harm.
#[derive(Args)]
pub(crate) struct Bootstrap {
    /// The folder `secrets` that `waypost registry config` wrote
    #[arg(long, value_name = "FOLDER")]
    secrets: PathBuf,
    /// The plain HTTP API of a server on this machine
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8500")]
    address: String,
    /// How long to wait for a leader
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What an agent does: it keeps its own node in the catalog and looks at services.
const AGENT_RULES: &str = r#"
node_prefix "" { policy = "write" }
agent_prefix "" { policy = "write" }
service_prefix "" { policy = "read" }
"#;

impl Bootstrap {
    pub(super) async fn run(self) -> Outcome {
        let secret = |name: &str| {
            let path = self.secrets.join(name);
            let text = fs::read_to_string(&path);
            text.map(|text| text.trim().to_owned())
                .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
        };
        let (root, agent) = (secret("root-token")?, secret("agent-token")?);
        // Even a client that only speaks plain HTTP wants to know its cryptography.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = Api {
            client: reqwest::Client::new(),
            address: self.address.trim_end_matches('/').to_owned(),
            root,
            until: Instant::now() + self.timeout,
        };
        let policy = json!({ "Name": "waypost-agent", "Rules": AGENT_RULES });
        api.make("policy", &policy).await?;
        let token = json!({
            "Description": "the agents of this cluster",
            "SecretID": agent,
            "Policies": [{ "Name": "waypost-agent" }],
        });
        api.make("token", &token).await?;
        println!("the agents have their rights");
        Ok(ExitCode::SUCCESS)
    }
}

struct Api {
    client: reqwest::Client,
    address: String,
    root: String,
    until: Instant,
}

impl Api {
    /// Makes a policy or a token, if it isn't there. A cluster that is just starting says 500 for
    /// a while, and 403 until it knows its first token.
    async fn make(&self, what: &str, body: &Value) -> Result<(), Failure> {
        loop {
            let request = self
                .client
                .put(format!("{}/v1/acl/{what}", self.address))
                .header("x-consul-token", &self.root)
                .timeout(Duration::from_secs(5))
                .json(body);
            let refusal = match request.send().await {
                Ok(reply) if reply.status().is_success() => return Ok(()),
                Ok(reply) => reply.text().await.unwrap_or_default(),
                Err(error) => error.without_url().to_string(),
            };
            if refusal.contains("already exists") || refusal.contains("already in use") {
                return Ok(());
            }
            if Instant::now() > self.until {
                let address = &self.address;
                return Err(Failure::Other(format!("{what} at {address}: {refusal}")));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}
