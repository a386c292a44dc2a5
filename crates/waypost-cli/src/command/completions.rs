//! `waypost completions`

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::error::CommandResult;
use crate::terminal::print_verbatim;

/// Print a shell completion script
#[derive(Args)]
pub(crate) struct Completions {
    /// Shell to generate the script for
    shell: Shell,
}

impl Completions {
    pub(super) fn run<C: CommandFactory>(self) -> CommandResult {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut C::command(), "waypost", &mut script);
        print_verbatim(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
