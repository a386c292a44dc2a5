//! The error of a command: its message and its exit code.

use std::fmt;
use std::net::IpAddr;
use std::process::ExitCode;

use waypost::{ConfigError, Error, Invalid, ProviderError, ProviderErrorKind};
use waypost_runner::stack_file::StackFileError;

use crate::output::counted;

/// The result of a command. `Ok` holds the exit code, which is not always 0.
pub(crate) type CommandResult = Result<ExitCode, CommandError>;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// An error of service discovery.
    Discovery(Error),
    /// The same as [`Discovery`](Self::Discovery), with advice.
    WithHint(Box<Error>, String),
    /// The arguments or a file that they name are invalid.
    Invalid(String),
    /// The item to be removed does not exist.
    NothingThere(String),
    /// Any other error, as a message.
    Other(String),
    /// Stdout was closed by its reader. This is not a failure.
    StdoutClosed,
}

impl CommandError {
    pub(crate) fn other(error: impl fmt::Display) -> Self {
        Self::Other(error.to_string())
    }

    /// The error for an invalid stack file. The message lists all problems, one per line.
    pub(crate) fn stack_file(error: StackFileError) -> Self {
        Self::Invalid(match error {
            StackFileError::Invalid(problems) => {
                let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
                let (errors, list) = (counted(problems.len(), "error"), problems.join("\n"));
                format!("{errors} in the stack file\n{list}")
            }
            error => error.to_string(),
        })
    }

    /// The exit code, as listed in the long help of the program.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Discovery(error) => code_of(error),
            Self::WithHint(error, _) => code_of(error),
            Self::Invalid(_) => 2,
            Self::NothingThere(_) => 3,
            Self::Other(_) => 1,
            Self::StdoutClosed => 0,
        })
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovery(Error::Unreachable { cause, .. }) => unreachable(cause, f),
            Self::Discovery(error) => {
                error.fmt(f)?;
                match error {
                    Error::NoneHealthy { service, .. } => {
                        write!(f, "; `waypost instances {service}` shows why")
                    }
                    Error::NoInstances { service, .. } => {
                        write!(f, "; start one, or see `waypost doctor {service}`")
                    }
                    Error::TimedOut { .. } => {
                        f.write_str("; wait longer with --timeout, or see `waypost doctor`")
                    }
                    _ => Ok(()),
                }
            }
            Self::WithHint(error, hint) => write!(f, "{error}; {hint}"),
            Self::Invalid(message) | Self::NothingThere(message) | Self::Other(message) => {
                f.write_str(message)
            }
            Self::StdoutClosed => f.write_str("stdout is closed"),
        }
    }
}

fn code_of(error: &Error) -> u8 {
    match error {
        error if error.is_no_usable_instance() => 3,
        Error::Unreachable { .. } | Error::TimedOut { .. } | Error::Stale { .. } => 4,
        Error::NotAuthorised { .. } => 5,
        Error::Invalid(_) | Error::Config(_) => 2,
        _ => 1,
    }
}

/// Writes, in one line, why the registry can't be reached and what to do.
fn unreachable(cause: &ProviderError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(address) = cause.provider().strip_prefix("consul at ") else {
        return write!(f, "registry unreachable: {cause}");
    };
    if cause.kind() == ProviderErrorKind::InvalidResponse {
        return write!(
            f,
            "no registry answers at {address}: {}; name another with --registry",
            cause.message()
        );
    }
    let text = cause.to_string();
    if !text.to_lowercase().contains("connection refused") {
        return write!(f, "registry unreachable: {text}; see `waypost doctor`");
    }
    write!(f, "no registry at {address} (connection refused); ")?;
    if is_local(address) {
        f.write_str("start one: waypost up")
    } else {
        f.write_str("is it running? --registry names another")
    }
}

/// Whether an address such as `http://localhost:8500` is this machine's own.
fn is_local(address: &str) -> bool {
    let authority = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    let host = host.trim_matches(['[', ']']);
    let is_loopback = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    host == "localhost" || host.parse().is_ok_and(is_loopback)
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
