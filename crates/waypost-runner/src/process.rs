//! The description of one process of a stack.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::BuildError;
use crate::port::Transport;
use crate::ports::{PortSpec, Ports};
use crate::probe::Probe;
use crate::template::Vars;

/// One process of a stack: what to run, what it waits for, and when it counts as healthy.
///
/// A process is expected to stay in the foreground: when it ends without having been asked to, it
/// has crashed, whatever its exit code, and is started again. The exception is
/// [`Probe::completed`], for a step such as a migration that is done once.
///
/// # Placeholders
/// In arguments, in environment values and in the address of an HTTP probe these are replaced for
/// each instance; any other text in braces stays as it is.
///
/// | placeholder | stands for |
/// |---|---|
/// | `{port}` | the main port |
/// | `{port:NAME}` | the port of that name |
/// | `{host}` | the address of [`Process::host`]; in a probe, one that can be connected to |
/// | `{service}` | the name of the process, such as `ai-models` |
/// | `{name}` | the name of the instance, such as `ai-models-2` |
/// | `{replica}` | its number, from 1 |
///
/// ```
/// use waypost_runner::{Probe, Process};
///
/// let models = Process::new("ai-models", "waypost")
///     .args(["service", "ai-models", "--port", "{port}"])
///     .env("INSTANCE_NAME", "{name}")
///     .port(8002)
///     .replicas(3)
///     .after("registry")
///     .ready(Probe::http("/health"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Process {
    pub(crate) name: String,
    pub(crate) program: OsString,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) host: IpAddr,
    pub(crate) ports: Vec<PortSpec>,
    pub(crate) replicas: Option<u32>,
    pub(crate) after: Vec<Dependency>,
    pub(crate) ready: Option<Probe>,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_grace: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Started,
    Ready,
}

impl Process {
    /// A process named `name` that runs `program`, which is looked up in `PATH` unless it has a
    /// slash. The name may have letters, digits, `-`, `_` and `.`.
    pub fn new(name: impl Into<String>, program: impl Into<OsString>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: Vec::new(),
            replicas: None,
            after: Vec::new(),
            ready: None,
            start_timeout: Duration::from_secs(30),
            stop_grace: Duration::from_secs(10),
        }
    }

    /// Adds arguments. They may hold placeholders.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable on top of the runner's own environment. The value may hold placeholders.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The working directory; default: the runner's.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The address that the process listens on, for port checks, probes and `{host}`;
    /// default: 127.0.0.1.
    pub fn host(mut self, host: IpAddr) -> Self {
        self.host = host;
        self
    }

    /// The main port, on TCP. The first replica listens there, the others get free ports.
    /// 0 lets the runner choose for the first one, too.
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(PortSpec {
            name: None,
            number: port,
            transport: Transport::Tcp,
        });
        self
    }

    /// A further port, `{port:NAME}` in arguments.
    pub fn named_port(mut self, name: impl Into<String>, port: u16, transport: Transport) -> Self {
        self.ports.push(PortSpec {
            name: Some(name.into()),
            number: port,
            transport,
        });
        self
    }

    /// Runs `replicas` instances, named `NAME-1`, `NAME-2` and so on. Without this call there is
    /// one instance, named as the process.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// Starts only once every replica of `process` is healthy, or has completed if it is a step
    /// that is done once. `process` in turn is stopped only after this one has ended.
    pub fn after(self, process: impl Into<String>) -> Self {
        self.dependency(process.into(), Condition::Ready)
    }

    /// Like [`Process::after`], but without waiting for `process` to be healthy: started will do.
    pub fn after_started(self, process: impl Into<String>) -> Self {
        self.dependency(process.into(), Condition::Started)
    }

    /// When the process counts as healthy; default: [`Probe::tcp`] if it has a port, else
    /// [`Probe::running`].
    pub fn ready(mut self, probe: Probe) -> Self {
        self.ready = Some(probe);
        self
    }

    /// How long a start may take before the process is called unhealthy; default: 30 s.
    /// It is not ended: it may still get there.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// How long the process may take to end after SIGTERM before it gets SIGKILL; default: 10 s.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace;
        self
    }

    fn dependency(mut self, name: String, condition: Condition) -> Self {
        self.after.push(Dependency { name, condition });
        self
    }

    /// The name of a replica. An instance that started single keeps the plain name when it is
    /// joined by others.
    pub(crate) fn instance_name(&self, replica: u32) -> String {
        match (self.replicas, replica) {
            (None, 1) => self.name.clone(),
            _ => format!("{}-{replica}", self.name),
        }
    }

    pub(crate) fn probe(&self) -> Probe {
        self.ready.clone().unwrap_or_else(|| {
            let has_port = self.ports.iter().any(|port| port.name.is_none());
            if has_port {
                Probe::tcp()
            } else {
                Probe::running()
            }
        })
    }

    /// Refuses what can't work, before anything is started.
    pub(crate) fn validate(&self) -> Result<(), BuildError> {
        let invalid = |field: &str, problem: String| BuildError::Invalid {
            process: self.name.clone(),
            field: field.to_owned(),
            problem,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || !self.name.chars().all(allowed) {
            return Err(invalid(
                "name",
                "must be made of letters, digits, `-`, `_` and `.`".to_owned(),
            ));
        }
        if self.program.is_empty() {
            return Err(invalid("program", "is empty".to_owned()));
        }
        if self.replicas == Some(0) {
            return Err(invalid("replicas", "must be at least 1".to_owned()));
        }
        if self.start_timeout.is_zero() {
            return Err(invalid("start_timeout", "must be longer than 0".to_owned()));
        }
        for (index, port) in self.ports.iter().enumerate() {
            if self.ports[..index]
                .iter()
                .any(|other| other.name == port.name)
            {
                let field = port
                    .name
                    .as_deref()
                    .map_or("port".to_owned(), |name| format!("named_port {name:?}"));
                return Err(invalid(&field, "is given twice".to_owned()));
            }
        }

        let ports = Ports::new(&self.ports, 1);
        let vars = self.vars(&self.name, 1, &ports);
        for (index, arg) in self.args.iter().enumerate() {
            vars.expand(arg)
                .map_err(|problem| invalid(&format!("args[{index}]"), problem))?;
        }
        for (name, value) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(invalid(
                    &format!("env {name:?}"),
                    "is no name for a variable".to_owned(),
                ));
            }
            vars.expand(value)
                .map_err(|problem| invalid(&format!("env {name}"), problem))?;
        }
        self.probe()
            .resolve(vars)
            .map(drop)
            .map_err(|problem| invalid("ready", problem))
    }

    pub(crate) fn vars<'a>(
        &'a self,
        instance: &'a str,
        replica: u32,
        ports: &'a Ports,
    ) -> Vars<'a> {
        Vars {
            service: &self.name,
            instance,
            replica,
            host: self.host,
            ports,
        }
    }
}
