//! The embedded registry: running it, and asking one that runs to tidy up or to leave.

mod leave;
mod leftovers;
mod serve;

use clap::{Args, Subcommand};

use super::{Outcome, in_runtime, serving};

/// Run the embedded registry, which speaks Consul's HTTP API
///
/// It has one node and keeps what it knows in memory; for more than one machine, use Consul.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Agent {
    #[command(flatten)]
    serve: serve::Serve,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Leftovers(leftovers::Leftovers),
    Leave(leave::Leave),
}

/// Which agent is meant.
#[derive(Args)]
struct Which {
    /// The agent, this one or a Consul's
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "CONSUL_HTTP_ADDR",
        default_value = "127.0.0.1:8500"
    )]
    registry: String,
    /// The token that it asks for
    #[arg(long, env = "CONSUL_HTTP_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Agent {
    pub(super) fn run(self) -> Outcome {
        match self.command {
            None => serving("info", self.serve.run()),
            Some(Command::Leftovers(leftovers)) => in_runtime(leftovers.run()),
            Some(Command::Leave(leave)) => in_runtime(leave.run()),
        }
    }
}

impl Which {
    fn url(&self) -> String {
        let address = self.registry.trim_end_matches('/');
        match address.contains("://") {
            true => address.to_owned(),
            false => format!("http://{address}"),
        }
    }
}
