//! `waypost check`

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use waypost_runner::stack_file::StackFile;

use super::stack_args::StackArgs;
use crate::error::{CommandError, CommandResult};
use crate::output::counted;
use crate::terminal::print_line;

/// Check a stack file
///
/// Prints everything that is wrong with it, each with its line and column, and succeeds if nothing is.
#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    stack: StackArgs,
}

impl Check {
    pub(super) fn run(&self) -> CommandResult {
        let path = self.stack.require_file()?;
        let file = read(&path)?;
        print_line(format_args!(
            "{} is valid: the stack `{}` with {}",
            path.display(),
            file.name(),
            counted(file.contents().services.len(), "service")
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads a stack file, and checks it and the routes file that it names.
pub(crate) fn read(path: &Path) -> Result<StackFile, CommandError> {
    let file = StackFile::read(path).map_err(CommandError::stack_file)?;
    if let Some(routes) = file.routes() {
        waypost_gateway::check_routes(&routes)
            .map_err(|error| CommandError::Invalid(error.to_string()))?;
    }
    Ok(file)
}
