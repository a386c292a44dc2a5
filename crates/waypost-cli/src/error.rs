//! The error of a command: its message and its exit code.

use std::fmt;
use std::process::ExitCode;

use waypost::{ConfigError, Error, Invalid};

/// The result of a command. `Ok` holds the exit code, which is not always 0.
pub(crate) type CommandResult = Result<ExitCode, CommandError>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// An error of service discovery.
    Discovery(Error),
    /// Any other error, as a message.
    Other(String),
}

impl CommandError {
    pub(crate) fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// The exit code, as listed in the long help of the program.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Discovery(error) => match error {
                error if error.is_no_usable_instance() => 3,
                Error::Unreachable { .. } | Error::TimedOut { .. } => 4,
                Error::NotAuthorised { .. } => 5,
                Error::Invalid(_) | Error::Config(_) => 2,
                _ => 1,
            },
            Self::Other(_) => 1,
        })
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovery(error) => error.fmt(f),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        Self::Discovery(error)
    }
}

impl From<Invalid> for CommandError {
    fn from(error: Invalid) -> Self {
        Self::Discovery(error.into())
    }
}

impl From<ConfigError> for CommandError {
    fn from(error: ConfigError) -> Self {
        Self::Discovery(error.into())
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        Self::other(error)
    }
}
