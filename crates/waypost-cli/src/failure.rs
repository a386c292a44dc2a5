//! How a command fails: the words, and the exit code that goes with them.

use std::fmt;
use std::process::ExitCode;

use waypost::{ConfigError, Error, Invalid};

/// Why a command did not do what it was asked to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Discovery says so.
    Discovery(Error),
    /// Anything else, in words.
    Other(String),
}

impl Failure {
    pub(crate) fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// The table of the command's long help.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Discovery(error) => match error {
                error if error.is_nothing_there() => 3,
                Error::Unreachable { .. } | Error::TimedOut { .. } => 4,
                Error::NotAuthorised { .. } => 5,
                Error::Invalid(_) | Error::Config(_) => 2,
                _ => 1,
            },
            Self::Other(_) => 1,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovery(error) => error.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Discovery(error)
    }
}

impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self::Discovery(invalid.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Discovery(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::other(error)
    }
}
