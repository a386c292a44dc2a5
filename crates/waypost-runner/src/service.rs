//! The description of one service of a stack.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::BuildError;
use crate::port::Transport;
use crate::ports::{PortSpec, Ports};
use crate::probe::{Check, Probe};
use crate::template::Variables;

/// Describes one service: the program to run, what it depends on, and when it counts as healthy.
///
/// The program is expected to stay in the foreground. If it exits without having been told to, it
/// has crashed, whatever its exit code, and is restarted. The exception is a one-time task such as a
/// migration; see [`Probe::completed`].
///
/// # Placeholders
/// In arguments, in the values of environment variables and in the address of an HTTP probe, these
/// placeholders are replaced for each instance. Any other text in braces is left as it is.
///
/// | placeholder | value |
/// |---|---|
/// | `{port}` | the main port |
/// | `{port:NAME}` | the port with that name |
/// | `{host}` | the address set by [`host`](Self::host); in a probe, an address to connect to |
/// | `{service}` | the name of the service, such as `ai-models` |
/// | `{name}` | the name of the instance, such as `ai-models-2` |
/// | `{replica}` | the number of the instance, from 1 |
///
/// ```
/// use waypost_runner::{Probe, ServiceSpec};
///
/// let models = ServiceSpec::new("ai-models", "waypost")
///     .args(["service", "ai-models", "--port", "{port}"])
///     .env("INSTANCE_NAME", "{name}")
///     .port(8002)
///     .replicas(3)
///     .after("registry")
///     .ready(Probe::http("/health"));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ServiceSpec {
    pub(crate) name: String,
    program: OsString,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
    pub(crate) host: IpAddr,
    pub(crate) ports: Vec<PortSpec>,
    replicas: Option<u32>,
    pub(crate) after: Vec<Dependency>,
    ready: Option<Probe>,
    pub(crate) start_timeout: Duration,
    pub(crate) stop_grace: Duration,
}

impl ServiceSpec {
    /// A service called `name` that runs `program`, which is looked up in `PATH` unless it contains
    /// a slash. The name may contain letters, digits, `-`, `_` and `.`.
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

    /// Adds arguments. They may contain placeholders.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable, in addition to the runner's own environment. The value may
    /// contain placeholders.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The working directory; default: the runner's.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// The address that the program listens on, used for port checks, probes and `{host}`;
    /// default: 127.0.0.1.
    pub fn host(mut self, host: IpAddr) -> Self {
        self.host = host;
        self
    }

    /// The main port, on TCP. The first replica gets this port and the others get free ones. With 0
    /// the first replica gets a free one as well.
    pub fn port(mut self, port: u16) -> Self {
        self.ports.push(PortSpec {
            name: None,
            number: port,
            transport: Transport::Tcp,
        });
        self
    }

    /// Adds another port, available as `{port:NAME}`. 0 and replicas work as for
    /// [`port`](Self::port).
    pub fn named_port(mut self, name: impl Into<String>, port: u16, transport: Transport) -> Self {
        self.ports.push(PortSpec {
            name: Some(name.into()),
            number: port,
            transport,
        });
        self
    }

    /// Runs `replicas` instances, named `NAME-1`, `NAME-2` and so on. By default there is one
    /// instance with the name of the service.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = Some(replicas);
        self
    }

    /// Starts only once every instance of `service` is healthy, or has completed if it is a one-time
    /// task. At shutdown, `service` is stopped only after this one has exited.
    pub fn after(self, service: impl Into<String>) -> Self {
        self.dependency(service.into(), Condition::Ready)
    }

    /// Like [`after`](Self::after), but starts as soon as every instance of `service` has been
    /// started, healthy or not.
    pub fn after_started(self, service: impl Into<String>) -> Self {
        self.dependency(service.into(), Condition::Started)
    }

    /// When an instance counts as healthy; default: [`Probe::tcp`] if the service has a main port,
    /// else [`Probe::running`].
    pub fn ready(mut self, probe: Probe) -> Self {
        self.ready = Some(probe);
        self
    }

    /// How long an instance may take to become healthy before it counts as unhealthy;
    /// default: 30 s. It is left running and becomes healthy when its probe succeeds.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// How long an instance may take to exit after SIGTERM before it gets SIGKILL; default: 10 s.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace;
        self
    }

    fn dependency(mut self, service: String, condition: Condition) -> Self {
        self.after.push(Dependency { service, condition });
        self
    }

    /// The numbers of the replicas that are started with the stack.
    pub(crate) fn initial_replicas(&self) -> impl Iterator<Item = u32> + use<> {
        1..=self.replicas.unwrap_or(1)
    }

    /// The name of a replica. The first instance of a service without
    /// [`replicas`](Self::replicas) keeps the plain name when the service is scaled up.
    pub(crate) fn instance_name(&self, replica: u32) -> String {
        if self.replicas.is_none() && replica == 1 {
            self.name.clone()
        } else {
            format!("{}-{replica}", self.name)
        }
    }

    pub(crate) fn probe(&self) -> Probe {
        self.ready.clone().unwrap_or_else(|| {
            let has_main_port = self.ports.iter().any(|port| port.name.is_none());
            if has_main_port {
                Probe::tcp()
            } else {
                Probe::running()
            }
        })
    }

    /// Rejects a description that cannot work.
    pub(crate) fn validate(&self) -> Result<(), BuildError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.name.is_empty() || !self.name.chars().all(allowed) {
            let problem = "must consist of letters, digits, `-`, `_` and `.`";
            return Err(self.invalid("name", problem));
        }
        if self.program.is_empty() {
            return Err(self.invalid("program", "is empty"));
        }
        if self.replicas == Some(0) {
            return Err(self.invalid("replicas", "must be at least 1"));
        }
        if self.start_timeout.is_zero() {
            return Err(self.invalid("start_timeout", "must be longer than 0"));
        }
        for (index, port) in self.ports.iter().enumerate() {
            let mut earlier = self.ports[..index].iter();
            if earlier.any(|other| other.name == port.name) {
                let field = match &port.name {
                    Some(name) => format!("named_port {name:?}"),
                    None => "port".to_owned(),
                };
                return Err(self.invalid(field, "is set twice"));
            }
        }
        for (name, _) in &self.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(self.invalid(format!("env {name:?}"), "is not a valid variable name"));
            }
        }
        self.launch(1, &Ports::new(&self.ports, 1)).map(drop)
    }

    /// Replaces the placeholders for one instance.
    ///
    /// # Errors
    /// A placeholder or the probe needs a port that the service does not have, or the probe is
    /// invalid.
    pub(crate) fn launch(&self, replica: u32, ports: &Ports) -> Result<Launch, BuildError> {
        let instance = self.instance_name(replica);
        let variables = Variables {
            service: &self.name,
            instance: &instance,
            replica,
            host: self.host,
            ports,
        };
        let expand = |field: String, template: &str| {
            let expanded = variables.expand(template);
            expanded.map_err(|problem| self.invalid(field, problem))
        };
        let args = self.args.iter().enumerate();
        let args = args.map(|(index, arg)| expand(format!("args[{index}]"), arg));
        let env = self.env.iter().map(|(name, value)| {
            let value = expand(format!("env {name}"), value)?;
            Ok((name.clone(), value))
        });
        Ok(Launch {
            program: self.program.clone(),
            args: args.collect::<Result<_, _>>()?,
            env: env.collect::<Result<_, _>>()?,
            dir: self.dir.clone(),
            check: self
                .probe()
                .check(&variables)
                .map_err(|problem| self.invalid("ready", problem))?,
            instance,
        })
    }

    fn invalid(&self, field: impl Into<String>, problem: impl Into<String>) -> BuildError {
        BuildError::Invalid {
            service: self.name.clone(),
            field: field.into(),
            problem: problem.into(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) service: String,
    pub(crate) condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    Started,
    Ready,
}

/// What to run for one instance and how to check it: a [`ServiceSpec`] with every placeholder
/// replaced.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) instance: String,
    pub(crate) program: OsString,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) check: Check,
}
