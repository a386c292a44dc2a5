use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Outcome;
use crate::Cli;

#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Outcome {
        clap_complete::generate(
            self.shell,
            &mut Cli::command(),
            "waypost",
            &mut std::io::stdout(),
        );
        Ok(ExitCode::SUCCESS)
    }
}
