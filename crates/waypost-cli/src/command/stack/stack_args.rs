//! The option of every command that works with a stack.

use std::path::{Path, PathBuf};

use clap::Args;
use waypost_runner::control::{Client, ClientError, StackView, running_stacks, socket_of_file};
use waypost_runner::stack_file::{FILE_NAME, StackFile};

use crate::error::CommandError;

/// The folder for files that a stack writes, in the folder of the stack file.
pub(crate) const FOLDER: &str = ".waypost";

/// The folder of the log files of a stack.
pub(crate) fn log_folder(directory: &Path) -> PathBuf {
    directory.join(FOLDER).join("logs")
}

/// The option that selects a stack.
#[derive(Args, Clone, Debug)]
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
            // Relative, as a person would write it.
            Some(match file.strip_prefix(&current) {
                Ok(relative) => relative.to_owned(),
                Err(_) => file,
            })
        };
        self.file.clone().or_else(find)
    }

    /// Like [`file`](Self::file), but if there is none, returns an error that says what to do.
    pub(crate) fn require_file(&self) -> Result<PathBuf, CommandError> {
        self.file().ok_or_else(|| self.no_file())
    }

    pub(crate) fn no_file(&self) -> CommandError {
        CommandError::Invalid(format!(
            "no {FILE_NAME} in this folder or one above it; write one: waypost init"
        ))
    }

    /// Connects to the running stack of the file; without a file, to the only running stack.
    ///
    /// # Errors
    /// If no stack is running, or several are. The message says what to do.
    pub(super) async fn connect(&self) -> Result<Client, CommandError> {
        if let Some(file) = self.file() {
            let socket = socket_of_file(&file)
                .map_err(|error| CommandError::Invalid(format!("{}: {error}", file.display())))?;
            return Client::connect(&socket).await.map_err(|error| match error {
                ClientError::NotRunning => CommandError::NothingThere(format!(
                    "the stack of {} is not running; start it: waypost up",
                    file.display()
                )),
                error => CommandError::other(error),
            });
        }
        let mut running = Vec::new();
        for socket in running_stacks() {
            if let Ok(client) = Client::connect(&socket).await {
                running.push(client);
            }
        }
        if running.len() > 1 {
            let mut files = Vec::new();
            for client in &mut running {
                let stack: StackView = client.get("/api/stack").await.map_err(client_error)?;
                files.push(stack.file.unwrap_or(stack.name));
            }
            return Err(CommandError::Invalid(format!(
                "several stacks are running; choose one with --file: {}",
                files.join(", ")
            )));
        }
        running.pop().ok_or_else(|| {
            CommandError::NothingThere("no stack is running; start one: waypost up".to_owned())
        })
    }
}

/// The error of a request to a running stack.
pub(super) fn client_error(error: ClientError) -> CommandError {
    match error {
        ClientError::Refused {
            status: 404,
            detail,
        } => CommandError::NothingThere(detail),
        error => CommandError::other(error),
    }
}

/// Checks a name that is used in the path or query of a request. Valid names have no characters that
/// need escaping.
pub(super) fn name_in_path(name: &str) -> Result<&str, CommandError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_allowed) {
        let message = format!("{name:?} is not the name of a service");
        return Err(CommandError::Invalid(message));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_path_has_no_characters_that_need_escaping() {
        for name in ["web", "order-history_2.v1"] {
            assert_eq!(name_in_path(name).unwrap(), name);
        }
        for name in ["", "a/b", "..%2f", "a b", "é"] {
            let error = name_in_path(name).unwrap_err();
            assert!(matches!(error, CommandError::Invalid(_)), "{name}");
        }
    }

    #[test]
    fn what_a_stack_does_not_have_is_not_there() {
        let refused = |status: u16| {
            let detail = "there is no service".to_owned();
            client_error(ClientError::Refused { status, detail })
        };
        assert!(matches!(refused(404), CommandError::NothingThere(_)));
        assert!(matches!(refused(409), CommandError::Other(_)));
        assert!(matches!(
            client_error(ClientError::NotRunning),
            CommandError::Other(_)
        ));
    }
}
