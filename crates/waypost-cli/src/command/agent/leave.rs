//! `waypost agent leave`

use std::process::ExitCode;

use clap::Args;

use super::agent_args::AgentArgs;
use crate::error::{CommandError, CommandResult};

/// Make a running agent shut down
#[derive(Args)]
pub(super) struct Leave {
    #[command(flatten)]
    agent: AgentArgs,
}

impl Leave {
    pub(super) async fn run(self) -> CommandResult {
        let url = self.agent.url();
        waypost_agent::leave(&url, self.agent.token.as_deref())
            .await
            .map_err(CommandError::other)?;
        println!("{url} is shutting down");
        Ok(ExitCode::SUCCESS)
    }
}
