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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use waypost::ServiceName;

    use super::*;

    fn unreachable(provider: &str, kind: ProviderErrorKind, message: &str) -> Error {
        Error::Unreachable {
            service: None,
            cause: ProviderError::new(provider, kind, message),
        }
    }

    #[test]
    fn an_error_says_what_to_do_and_has_an_exit_code_for_its_kind() {
        let auth = || ServiceName::new("auth").unwrap();
        let provider = || Arc::<str>::from("consul at http://localhost:8500");
        let age = Duration::ZERO;
        let refused = ProviderErrorKind::Unreachable;
        let answered = ProviderErrorKind::InvalidResponse;
        for (error, code, text) in [
            (
                Error::NoneHealthy {
                    service: auth(),
                    provider: provider(),
                    age,
                    instances: 1,
                },
                3,
                "the instance of service \"auth\" is not healthy, according to consul at \
                 http://localhost:8500; `waypost instances auth` shows why",
            ),
            (
                Error::NoInstances {
                    service: auth(),
                    provider: provider(),
                    age,
                },
                3,
                "service \"auth\" has no instances, according to consul at http://localhost:8500; \
                 start one, or see `waypost doctor auth`",
            ),
            (
                Error::UnknownService {
                    service: auth(),
                    provider: provider(),
                    age,
                },
                3,
                "service \"auth\" is unknown to consul at http://localhost:8500",
            ),
            (
                Error::TimedOut {
                    service: Some(auth()),
                    provider: provider(),
                    waited: Duration::from_millis(1),
                    cause: None,
                },
                4,
                "service \"auth\": no answer from consul at http://localhost:8500 in 1ms; wait longer \
                 with --timeout, or see `waypost doctor`",
            ),
            (
                Error::NotAuthorised {
                    service: None,
                    cause: ProviderError::new("x", ProviderErrorKind::NotAuthorised, "403"),
                },
                5,
                "not authorised: x: 403",
            ),
            (
                unreachable(
                    "consul at http://localhost:8500",
                    refused,
                    "Connection refused",
                ),
                4,
                "no registry at http://localhost:8500 (connection refused); start one: waypost up",
            ),
            (
                unreachable(
                    "consul at http://consul:8500",
                    refused,
                    "connection refused",
                ),
                4,
                "no registry at http://consul:8500 (connection refused); is it running? --registry \
                 names another",
            ),
            (
                unreachable("consul at http://consul:8500", refused, "no route"),
                4,
                "registry unreachable: consul at http://consul:8500: no route; see `waypost doctor`",
            ),
            (
                unreachable("consul at http://localhost:80", answered, "404"),
                4,
                "no registry answers at http://localhost:80: 404; name another with --registry",
            ),
            (
                unreachable("kubernetes at https://k", answered, "404"),
                4,
                "registry unreachable: kubernetes at https://k: 404",
            ),
            (Error::Config(ConfigError::new("PORT", "no")), 2, "PORT: no"),
            (Error::WithinRuntime, 1, &Error::WithinRuntime.to_string()),
        ] {
            let error = CommandError::from(error);
            assert_eq!(error.to_string(), text);
            assert_eq!(error.exit_code(), ExitCode::from(code), "{text}");
        }
        let hinted = Box::new(Error::Config(ConfigError::new("PORT", "no")));
        let hinted = CommandError::WithHint(hinted, "try 80".to_owned());
        for (error, code, text) in [
            (hinted, 2, "PORT: no; try 80"),
            (CommandError::Invalid("a".to_owned()), 2, "a"),
            (CommandError::NothingThere("b".to_owned()), 3, "b"),
            (CommandError::Other("c".to_owned()), 1, "c"),
            (CommandError::StdoutClosed, 0, "stdout is closed"),
        ] {
            assert_eq!(error.to_string(), text);
            assert_eq!(error.exit_code(), ExitCode::from(code), "{text}");
        }
    }

    #[test]
    fn an_address_of_this_machine_is_recognised_in_each_form() {
        for (address, expected) in [
            ("http://localhost:8500", true),
            ("https://127.0.0.1:8501", true),
            ("127.0.0.2:8500", true),
            ("http://0.0.0.0:8500", true),
            ("http://[::1]:8500", true),
            ("http://[::]:8500", true),
            ("localhost", true),
            ("http://consul:8500", false),
            ("http://localhost.example:8500", false),
            ("http://192.0.2.1:8500", false),
            ("http://[2001:db8::1]:8500", false),
        ] {
            assert_eq!(is_local(address), expected, "{address}");
        }
    }
}
