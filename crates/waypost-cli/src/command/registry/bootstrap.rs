//! `waypost registry bootstrap`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::error::{CommandError, CommandResult};
use crate::terminal::print_line;

/// Create the ACL policy and token that the agents of a new cluster use
///
/// Run it once, on a server, when the servers configured by `waypost registry config` are running.
/// Running it again changes nothing.
#[derive(Args)]
pub(crate) struct Bootstrap {
    /// The directory `secrets` written by `waypost registry config`
    #[arg(long, value_name = "DIR")]
    secrets: PathBuf,
    /// URL of a server's HTTP API, without TLS
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8500")]
    address: String,
    /// How long to wait for the cluster to elect a leader
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// An agent updates its own node in the catalog and reads services.
const AGENT_RULES: &str = r#"
node_prefix "" { policy = "write" }
agent_prefix "" { policy = "write" }
service_prefix "" { policy = "read" }
"#;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

impl Bootstrap {
    pub(super) async fn run(self) -> CommandResult {
        let (root, agent) = (self.secret("root-token")?, self.secret("agent-token")?);
        // reqwest needs a crypto provider even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let acl = AclApi {
            // The cluster is on this network and is reached directly, without a proxy.
            client: reqwest::Client::builder()
                .no_proxy()
                .build()
                .map_err(CommandError::other)?,
            url: format!("{}/v1/acl", self.address.trim_end_matches('/')),
            token: root,
            deadline: Instant::now() + self.timeout,
        };
        let policy = json!({ "Name": "waypost-agent", "Rules": AGENT_RULES });
        acl.create("policy", &policy).await?;
        let token = json!({
            "Description": "the agents of this cluster",
            "SecretID": agent,
            "Policies": [{ "Name": "waypost-agent" }],
        });
        acl.create("token", &token).await?;
        print_line("created the policy and the token of the agents")?;
        Ok(ExitCode::SUCCESS)
    }

    fn secret(&self, name: &str) -> Result<String, CommandError> {
        let path = self.secrets.join(name);
        let text = fs::read_to_string(&path)
            .map_err(|error| CommandError::Other(format!("{}: {error}", path.display())))?;
        Ok(text.trim().to_owned())
    }
}

struct AclApi {
    client: reqwest::Client,
    url: String,
    token: String,
    deadline: Instant,
}

impl AclApi {
    /// Creates a policy or a token, unless it exists. Retries until the deadline, since a cluster
    /// that is starting responds with 500, and with 403 until it knows its first token.
    async fn create(&self, kind: &str, body: &Value) -> Result<(), CommandError> {
        loop {
            let request = self
                .client
                .put(format!("{}/{kind}", self.url))
                .header("x-consul-token", &self.token)
                .timeout(REQUEST_TIMEOUT)
                .json(body);
            let error = match request.send().await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => response.text().await.unwrap_or_default(),
                Err(error) => error.without_url().to_string(),
            };
            if error.contains("already exists") || error.contains("already in use") {
                return Ok(());
            }
            if Instant::now() > self.deadline {
                return Err(CommandError::Other(format!("{}/{kind}: {error}", self.url)));
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}
