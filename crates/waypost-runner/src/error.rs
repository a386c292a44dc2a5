//! What can go wrong: [`BuildError`] before anything is started, [`StackError`] afterwards.

use std::fmt;

use crate::port::TakenPort;

/// Why the description of a stack is refused. Every message names the process and the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A field holds something that can't work.
    #[error("process `{process}`, {field}: {problem}")]
    Invalid {
        /// The process as it is named in the stack.
        process: String,
        /// The field, such as `args[2]` or `ready`.
        field: String,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// Two processes (or a process and a replica of another) have one name.
    #[error("two processes of the stack are named `{0}`")]
    DuplicateName(String),
    /// Two processes want one port.
    #[error("port {port} is wanted by both `{first}` and `{second}`")]
    DuplicatePort {
        /// The port.
        port: u16,
        /// The process that named it first.
        first: String,
        /// The process that named it again.
        second: String,
    },
    /// A process waits for one that does not exist.
    #[error(
        "process `{process}`, after: there is no process `{dependency}`; the stack has {known}"
    )]
    UnknownDependency {
        /// The process that waits.
        process: String,
        /// What it waits for.
        dependency: String,
        /// The names that exist.
        known: String,
    },
    /// Processes wait for each other, so that none could ever start.
    #[error("processes wait for each other: {}", .0.join(" -> "))]
    Cycle(
        /// The circle; its first name stands at the end again.
        Vec<String>,
    ),
}

/// Why a stack could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// Ports that the stack needs are in use; nothing was started.
    #[error("{}", Lines(.0))]
    PortsTaken(
        /// Each port, with who holds it.
        Vec<TakenPort>,
    ),
    /// An instance crashed, could not be started or did not get healthy in time.
    #[error("`{instance}` did not become healthy: {reason}{}", LastLines(.last_lines))]
    NotHealthy {
        /// The instance, such as `ai-models-2`.
        instance: String,
        /// Its exit status or what its probe said last.
        reason: String,
        /// The last lines that it wrote, at most 20.
        last_lines: Vec<String>,
    },
    /// No process or instance has this name.
    #[error("there is no process `{name}` in the stack; it has {known}")]
    UnknownProcess {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A further replica would have the name of another process.
    #[error("a replica of `{process}` would be named `{name}`, which another process is named")]
    NameTaken {
        /// The process to be scaled.
        process: String,
        /// The name that is taken.
        name: String,
    },
    /// This process was started as the supervisor of another, but `main` has not noticed. If it
    /// started the stack, that would start processes like this one without end.
    #[error("`main` must begin with `waypost_runner::shim::run_if_asked()`")]
    NoShim,
    /// The stack is being shut down.
    #[error("the stack is being shut down")]
    ShuttingDown,
    /// The operating system refused something that the runner itself needs.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was attempted.
        what: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// Names in a message: `a`, `b` and `c`.
pub(crate) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

struct Lines<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Lines<'_, T> {
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
            return write!(f, "; it wrote nothing");
        }
        write!(f, "; its last lines:")?;
        self.0.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}
