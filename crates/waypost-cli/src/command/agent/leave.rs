//! `waypost agent leave`

use std::process::ExitCode;

use clap::Args;

use super::agent_args::AgentArgs;
use crate::error::{CommandError, CommandResult};
use crate::terminal::print_line;

/// Shut down a running agent
#[derive(Args)]
pub(super) struct Leave {
    #[command(flatten)]
    agent: AgentArgs,
}

impl Leave {
    pub(super) async fn run(self) -> CommandResult {
        let url = self.agent.url();
        let token = self.agent.token()?;
        waypost_agent::leave(&url, token.as_deref())
            .await
            .map_err(CommandError::other)?;
        print_line(format_args!("{url} is shutting down"))?;
        Ok(ExitCode::SUCCESS)
    }
}
