//! `waypost completions`

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::error::CommandResult;

/// Print a shell completion script
#[derive(Args)]
pub(crate) struct Completions {
    /// Shell to generate the script for
    shell: Shell,
}

impl Completions {
    pub(super) fn run<C: CommandFactory>(self) -> CommandResult {
        clap_complete::generate(
            self.shell,
            &mut C::command(),
            "waypost",
            &mut std::io::stdout(),
        );
        Ok(ExitCode::SUCCESS)
    }
}
