//! The options of commands that call the API of a running agent.

use clap::Args;

/// The agent to call.
#[derive(Args)]
pub(super) struct AgentArgs {
    /// Address of the agent; a Consul agent works too
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CONSUL_HTTP_ADDR",
        default_value = "127.0.0.1:8500"
    )]
    registry: String,
    /// Token of the agent
    #[arg(long, env = "CONSUL_HTTP_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
}

impl AgentArgs {
    pub(super) fn url(&self) -> String {
        let address = self.registry.trim_end_matches('/');
        if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        }
    }
}
