//! A described stack, checked before anything of it runs.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{BuildError, StackError};
use crate::fleet::Fleet;
use crate::log::LogSink;
use crate::order;
use crate::ports::Ports;
use crate::process::Process;
use crate::running::Running;
use crate::shim;

/// Processes that can be started together. Everything that could be wrong about the description
/// itself was refused by [`StackBuilder::build`].
#[derive(Debug)]
pub struct Stack {
    pub(crate) processes: Vec<Arc<Process>>,
    /// Indices of the processes in the order of their start.
    pub(crate) waves: Vec<Vec<usize>>,
    pub(crate) supervisor: Option<PathBuf>,
    pub(crate) keep_lines: usize,
    pub(crate) seed: u64,
}

impl Stack {
    /// Begins a description.
    pub fn builder() -> StackBuilder {
        StackBuilder {
            processes: Vec::new(),
            supervisor: None,
            keep_lines: 1000,
            seed: None,
        }
    }

    /// Whether every fixed port of the stack is free.
    ///
    /// # Errors
    /// [`StackError::PortsTaken`] with every port that isn't, and who holds it.
    pub fn check_ports(&self) -> Result<(), StackError> {
        let taken: Vec<_> = self
            .processes
            .iter()
            .flat_map(|process| Ports::new(&process.ports, 1).taken(&process.name, process.host))
            .collect();
        if taken.is_empty() {
            Ok(())
        } else {
            Err(StackError::PortsTaken(taken))
        }
    }

    /// Starts everything, each process as soon as those that it comes after are healthy, and hands
    /// all that they write to `sink`. Does not wait: see [`Running::ready`].
    ///
    /// Needs a tokio runtime. The program's `main` must begin with
    /// [`shim::run_if_asked`](crate::shim::run_if_asked).
    ///
    /// # Errors
    /// A port is taken, then nothing was started; `main` does not begin as it must; or the system
    /// refuses a thread.
    pub fn start(self, sink: impl LogSink) -> Result<Running, StackError> {
        if shim::was_forgotten() {
            return Err(StackError::NoShim);
        }
        self.check_ports()?;
        Fleet::start(self, Box::new(sink)).map(Running)
    }

    pub(crate) fn supervisor(&self) -> Result<OsString, StackError> {
        match &self.supervisor {
            Some(program) => Ok(program.clone().into_os_string()),
            None => shim::this_executable().map_err(|source| StackError::Io {
                what: "find this executable",
                source,
            }),
        }
    }
}

/// Describes a [`Stack`].
#[derive(Debug)]
#[must_use]
pub struct StackBuilder {
    processes: Vec<Process>,
    supervisor: Option<PathBuf>,
    keep_lines: usize,
    seed: Option<u64>,
}

impl StackBuilder {
    /// Adds a process. The order doesn't matter for the start: [`Process::after`] does.
    pub fn process(mut self, process: Process) -> Self {
        self.processes.push(process);
        self
    }

    /// How many of its last lines are kept for each instance; default: 1,000 (and at most 4 MiB).
    pub fn keep_lines(mut self, lines: usize) -> Self {
        self.keep_lines = lines;
        self
    }

    /// The executable whose `main` begins with [`shim::run_if_asked`](crate::shim::run_if_asked);
    /// default: this one.
    pub fn supervisor(mut self, program: impl Into<PathBuf>) -> Self {
        self.supervisor = Some(program.into());
        self
    }

    /// Makes the waits before restarts repeatable; default: different in each run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Checks the description.
    ///
    /// # Errors
    /// A field that can't work, a name or port that is given twice, a dependency that doesn't exist,
    /// or processes that wait for each other.
    pub fn build(self) -> Result<Stack, BuildError> {
        for process in &self.processes {
            process.validate()?;
        }
        self.refuse_double_names()?;
        self.refuse_double_ports()?;
        let waves = order::waves(&self.processes)?;
        Ok(Stack {
            processes: self.processes.into_iter().map(Arc::new).collect(),
            waves,
            supervisor: self.supervisor,
            keep_lines: self.keep_lines,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
        })
    }

    fn refuse_double_names(&self) -> Result<(), BuildError> {
        let mut seen = HashSet::new();
        for process in &self.processes {
            let instances = (1..=process.replicas.unwrap_or(1)).map(|n| process.instance_name(n));
            // A process is called by its own name as well as by those of its instances.
            let names: HashSet<String> = instances.chain([process.name.clone()]).collect();
            for name in names {
                if !seen.insert(name.clone()) {
                    return Err(BuildError::DuplicateName(name));
                }
            }
        }
        Ok(())
    }

    fn refuse_double_ports(&self) -> Result<(), BuildError> {
        let overlap = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
        let mut seen: HashMap<u16, Vec<&Process>> = HashMap::new();
        for process in &self.processes {
            for port in process.ports.iter().filter(|port| port.number != 0) {
                let owners = seen.entry(port.number).or_default();
                if let Some(first) = owners
                    .iter()
                    .find(|owner| overlap(owner.host, process.host))
                {
                    return Err(BuildError::DuplicatePort {
                        port: port.number,
                        first: first.name.clone(),
                        second: process.name.clone(),
                    });
                }
                owners.push(process);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Probe;

    fn refusal(processes: impl IntoIterator<Item = Process>) -> String {
        let builder = processes
            .into_iter()
            .fold(Stack::builder(), StackBuilder::process);
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn every_refusal_names_the_process_and_the_field() {
        let p = |name: &str| Process::new(name, "true");
        let message = "process `a b`, name: must be made of letters, digits, `-`, `_` and `.`";
        assert_eq!(refusal([p("a b")]), message);
        assert_eq!(
            refusal([Process::new("a", "")]),
            "process `a`, program: is empty"
        );
        assert_eq!(
            refusal([p("a").replicas(0)]),
            "process `a`, replicas: must be at least 1"
        );
        assert_eq!(
            refusal([p("a").port(1).port(2)]),
            "process `a`, port: is given twice"
        );
        assert_eq!(
            refusal([p("a").args(["--port", "{port}"])]),
            "process `a`, args[1]: {port} is used, but the process has no port: add .port(…)"
        );
        assert_eq!(
            refusal([p("a").env("PORT", "{port}")]),
            "process `a`, env PORT: {port} is used, but the process has no port: add .port(…)"
        );
        assert_eq!(
            refusal([p("a").ready(Probe::http("/health"))]),
            "process `a`, ready: {port} is used, but the process has no port: add .port(…)"
        );
        assert_eq!(
            refusal([p("a").port(1).ready(Probe::http("https://x/"))]),
            "process `a`, ready: `https://x/` must be a path such as `/health` or begin with `http://`"
        );
    }

    #[test]
    fn names_are_unique_among_processes_and_replicas() {
        let p = |name: &str| Process::new(name, "true");
        assert_eq!(
            refusal([p("a"), p("a")]),
            "two processes of the stack are named `a`"
        );
        assert_eq!(
            refusal([p("a").replicas(2), p("a-2")]),
            "two processes of the stack are named `a-2`"
        );
    }

    #[test]
    fn ports_are_unique_unless_the_addresses_differ() {
        let p = |name: &str, host: &str| {
            Process::new(name, "true")
                .port(8000)
                .host(host.parse().unwrap())
        };
        let clash = "port 8000 is wanted by both `a` and `b`";
        assert_eq!(refusal([p("a", "127.0.0.1"), p("b", "127.0.0.1")]), clash);
        assert_eq!(refusal([p("a", "127.0.0.1"), p("b", "0.0.0.0")]), clash);
        let stack = Stack::builder()
            .process(p("a", "127.0.0.1"))
            .process(p("b", "127.0.0.2"));
        assert!(stack.build().is_ok());
    }
}
