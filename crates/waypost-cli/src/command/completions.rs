//! `waypost completions`

use std::process::ExitCode;

use clap::Args;
use clap_complete::Shell;
use clap_complete::env::Shells;

use crate::completion::VARIABLE;
use crate::error::{CommandError, CommandResult};
use crate::terminal::print_verbatim;

/// Print a shell completion script, which also completes the names of services
///
/// Load it when the shell starts, so that it always matches the installed version: with bash,
/// `source <(waypost completions bash)` in ~/.bashrc; with zsh the same in ~/.zshrc; with fish,
/// `waypost completions fish | source` in ~/.config/fish/config.fish.
#[derive(Args)]
pub(crate) struct Completions {
    /// Shell to generate the script for
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> CommandResult {
        let name = self.shell.to_string();
        let shells = Shells::builtins();
        let shell = shells
            .completer(&name)
            .ok_or_else(|| CommandError::Other(format!("there are no completions for {name}")))?;
        let mut script = Vec::new();
        shell.write_registration(VARIABLE, "waypost", "waypost", "waypost", &mut script)?;
        print_verbatim(&String::from_utf8_lossy(&script))?;
        Ok(ExitCode::SUCCESS)
    }
}
