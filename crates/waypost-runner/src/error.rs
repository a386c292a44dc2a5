//! The errors: [`BuildError`] for an invalid description, [`SupervisorError`] for everything after it.

use std::fmt;

use crate::port::TakenPort;
use crate::text::quoted;

/// Why [`StackBuilder::build`](crate::StackBuilder::build) rejects a description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A field has an invalid value.
    #[error("service `{service}`, {field}: {problem}")]
    Invalid {
        /// The service.
        service: String,
        /// The field, such as `args[2]` or `ready`.
        field: String,
        /// What is wrong with it and what would be valid.
        problem: String,
    },
    /// Two services, or a service and an instance of another, have the same name.
    #[error("the name `{0}` is used by two services")]
    DuplicateName(String),
    /// Two services have the same port.
    #[error("port {port} is used by both `{first}` and `{second}`")]
    DuplicatePort {
        /// The port.
        port: u16,
        /// The service that was added first.
        first: String,
        /// The service that was added later.
        second: String,
    },
    /// A service depends on one that does not exist.
    #[error(
        "service `{service}`, after: unknown service `{dependency}` (known: {})",
        quoted(.known)
    )]
    UnknownDependency {
        /// The service that has the dependency.
        service: String,
        /// The name of the missing service.
        dependency: String,
        /// The names of all services.
        known: Vec<String>,
    },
    /// Services depend on each other, so none of them could ever start.
    #[error("dependency cycle: {}", .0.join(" -> "))]
    Cycle(
        /// The path of the cycle. The last name repeats the first.
        Vec<String>,
    ),
}

/// Why a [`Supervisor`](crate::Supervisor) could not start or could not do what was requested.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// Ports of the stack are in use. Nothing was started.
    #[error("{}", OnePerLine(.0))]
    PortsTaken(
        /// Every port that is in use, with the process that holds it.
        Vec<TakenPort>,
    ),
    /// An instance crashed, could not be started or did not become healthy in time.
    #[error("`{instance}` did not become healthy: {reason}; {}", LastLines(.last_lines))]
    NotHealthy {
        /// The instance, such as `ai-models-2`.
        instance: String,
        /// Its exit status or the last result of its probe.
        reason: String,
        /// The last lines of its output, at most 20.
        last_lines: Vec<String>,
    },
    /// No service or instance has this name.
    #[error("unknown service `{name}` (known: {})", quoted(.known))]
    UnknownService {
        /// The requested name.
        name: String,
        /// The names of all services and instances, sorted.
        known: Vec<String>,
    },
    /// A new replica would have the name of another service or instance.
    #[error("a replica of `{service}` would be named `{name}`, but that name is in use")]
    NameTaken {
        /// The service to be scaled.
        service: String,
        /// The name that is in use.
        name: String,
    },
    /// This process was started as the shim of a program, but `main` did not call
    /// [`shim::run_if_requested`](crate::shim::run_if_requested). If it started the stack instead,
    /// it would start itself recursively.
    #[error("`main` must begin with `waypost_runner::shim::run_if_requested()`")]
    ShimNotCalled,
    /// The stack is shutting down.
    #[error("the stack is shutting down")]
    ShuttingDown,
    /// The operating system refused something that the runner needs.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

struct OnePerLine<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for OnePerLine<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{item}")?;
        }
        Ok(())
    }
}

struct LastLines<'a>(&'a [String]);

impl fmt::Display for LastLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "it wrote no output");
        }
        write!(f, "last lines of its output:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_names_what_it_is_about() {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        let taken = |port: u16, error: Option<&str>| TakenPort {
            service: "web".to_owned(),
            port,
            holder: None,
            error: error.map(str::to_owned),
        };
        let not_healthy = |last_lines: &[&str]| SupervisorError::NotHealthy {
            instance: "web-2".to_owned(),
            reason: "exited".to_owned(),
            last_lines: list(last_lines),
        };
        let text = "`web-2` did not become healthy: exited; ";
        for (error, expected) in [
            (
                SupervisorError::PortsTaken(vec![taken(80, None), taken(81, Some("no"))]),
                "port 80 of `web` is in use by a process that is not visible from here (another \
                 user's or a container's)\nport 81 of `web` cannot be opened: no",
            ),
            (not_healthy(&[]), &format!("{text}it wrote no output")),
            (
                not_healthy(&["one", "two"]),
                &format!("{text}last lines of its output:\n    one\n    two"),
            ),
            (
                SupervisorError::UnknownService {
                    name: "wbe".to_owned(),
                    known: list(&["db", "web"]),
                },
                "unknown service `wbe` (known: `db`, `web`)",
            ),
        ] {
            assert_eq!(error.to_string(), expected);
        }
    }
}
