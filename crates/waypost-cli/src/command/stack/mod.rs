//! The commands for a stack of services: its file, and the stack while it runs.

mod check;
mod schema;
mod stack_args;

use clap::Subcommand;

pub(crate) use self::stack_args::StackArgs;
use crate::error::CommandResult;

#[derive(Subcommand)]
pub(crate) enum StackCommand {
    Check(check::Check),
    Schema(schema::Schema),
}

impl StackCommand {
    pub(super) fn run(self) -> CommandResult {
        match self {
            Self::Check(check) => check.run(),
            Self::Schema(schema) => schema.run(),
        }
    }
}
