//! `waypost schema`

use std::process::ExitCode;

use clap::Args;
use waypost_runner::stack_file::StackFile;

use crate::error::{CommandError, CommandResult};
use crate::terminal::print_verbatim;

/// Print the JSON schema of the stack file, for completion in editors
///
/// Save it beside the file and begin the file with `#:schema ./waypost.schema.json`.
#[derive(Args)]
pub(crate) struct Schema {}

impl Schema {
    pub(super) fn run(&self) -> CommandResult {
        let schema =
            serde_json::to_string_pretty(&StackFile::schema()).map_err(CommandError::other)?;
        print_verbatim(&(schema + "\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}
