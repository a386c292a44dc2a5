use std::process::ExitCode;

use clap::Args;

use super::super::Outcome;
use super::Which;
use crate::failure::Failure;

/// Ask the agent to end
#[derive(Args)]
pub(super) struct Leave {
    #[command(flatten)]
    which: Which,
}

impl Leave {
    pub(super) async fn run(self) -> Outcome {
        let (url, token) = (self.which.url(), self.which.token.as_deref());
        waypost_agent::leave(&url, token)
            .await
            .map_err(Failure::other)?;
        println!("{url} is leaving");
        Ok(ExitCode::SUCCESS)
    }
}
