//! The options of commands that call the API of a running agent.

use std::path::PathBuf;

use clap::Args;

use crate::command::token_args::token;
use crate::error::CommandError;

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
    /// Token of the agent. Other users can see it in the list of processes: prefer the variable or
    /// --token-file
    #[arg(long, env = "CONSUL_HTTP_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the token, which takes precedence over --token
    #[arg(long, value_name = "PATH", env = "CONSUL_HTTP_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl AgentArgs {
    pub(super) fn token(&self) -> Result<Option<String>, CommandError> {
        token(self.token.clone(), self.token_file.as_deref())
    }

    pub(super) fn url(&self) -> String {
        let address = self.registry.trim_end_matches('/');
        if address.contains("://") {
            address.to_owned()
        } else {
            format!("http://{address}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_a_host_with_a_port_or_a_url() {
        for (registry, expected) in [
            ("127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("consul:8500/", "http://consul:8500"),
            ("https://consul:8501/", "https://consul:8501"),
        ] {
            let args = AgentArgs {
                registry: registry.to_owned(),
                token: None,
                token_file: None,
            };
            assert_eq!(args.url(), expected);
        }
    }
}
