//! `waypost agent`: runs the embedded registry, and maintains one that is running.

mod agent_args;
mod leave;
mod serve;
mod stale_instances;

use clap::{Args, Subcommand};

use crate::error::CommandResult;
use crate::runtime::{run_query, run_server};

/// Run the embedded registry, which implements Consul's HTTP API
///
/// The registry is a single node and keeps its data in memory unless --data-dir is given. Use
/// Consul for a registry that spans machines.
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
    #[command(name = "leftovers")]
    StaleInstances(stale_instances::StaleInstances),
    Leave(leave::Leave),
}

impl Agent {
    pub(super) fn run(self) -> CommandResult {
        match self.command {
            None => run_server(self.serve.run()),
            Some(Command::StaleInstances(stale_instances)) => run_query(stale_instances.run()),
            Some(Command::Leave(leave)) => run_query(leave.run()),
        }
    }
}
