//! `waypost config`: the settings of the commands and of programs that use the library.

mod show;

use clap::{CommandFactory, Subcommand};

use crate::error::CommandResult;

/// Show the settings
#[derive(Subcommand)]
pub(crate) enum Config {
    Show(show::Show),
}

impl Config {
    /// Runs the command. `C` is the whole command line, whose options can be set by variables.
    pub(super) fn run<C: CommandFactory>(self) -> CommandResult {
        match self {
            Self::Show(show) => show.run::<C>(),
        }
    }
}
