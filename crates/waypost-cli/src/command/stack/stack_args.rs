//! The option of every command that works with a stack file.

use std::path::PathBuf;

use clap::Args;
use waypost_runner::stack_file::{FILE_NAME, StackFile};

use crate::error::CommandError;

/// Which stack is meant.
#[derive(Args)]
pub(crate) struct StackArgs {
    /// The stack file [default: waypost.toml in this folder or the nearest one above it]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

impl StackArgs {
    /// The file that was given, or else the one that is found.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        let find = || {
            let current = std::env::current_dir().ok()?;
            let file = StackFile::find(&current)?;
            // As a person would write it.
            Some(match file.strip_prefix(&current) {
                Ok(relative) => relative.to_owned(),
                Err(_) => file,
            })
        };
        self.file.clone().or_else(find)
    }

    /// As [`file`](Self::file), but the error says what to do if there is none.
    pub(crate) fn require_file(&self) -> Result<PathBuf, CommandError> {
        self.file().ok_or_else(|| self.no_file())
    }

    pub(crate) fn no_file(&self) -> CommandError {
        CommandError::Invalid(format!(
            "no {FILE_NAME} in this folder or one above it; write one: waypost init"
        ))
    }
}
