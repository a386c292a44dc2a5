//! The description of one service of a stack.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::BuildError;
use crate::port::Transport;
use crate::ports::{PortSpec, Ports};
use crate::probe::{Check, Probe};
use crate::template::Variables;
use crate::watch::WatchSpec;

/// Describes one service: the program to run, what it depends on, and when it counts as healthy.
///
/// The program is expected to stay in the foreground. If it exits on its own, it is restarted; see
/// [`restart`](Self::restart). The exception is a one-time task such as a migration; see
/// [`Probe::completed`].
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
    env: Vec<Variable>,
    pub(crate) dir: Option<PathBuf>,
    pub(crate) external: Option<String>,
    pub(crate) host: IpAddr,
    pub(crate) ports: Vec<PortSpec>,
    replicas: Option<u32>,
    pub(crate) after: Vec<Dependency>,
    ready: Option<Probe>,
    pub(crate) start_timeout: Duration,
    pub(crate) restart: RestartRule,
    pub(crate) stop_signal: StopSignal,
    pub(crate) stop_grace: Duration,
    pub(crate) is_enabled: bool,
    pub(crate) blocked: Option<Blocked>,
    build: Vec<String>,
    pub(crate) watch: Option<WatchSpec>,
    pub(crate) details: ServiceDetails,
}

/// An environment variable of a service.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// May contain placeholders.
    pub(crate) value: String,
    pub(crate) source: VariableSource,
}

/// Where an environment variable comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VariableSource {
    /// The environment of the runner.
    Shell,
    /// A file of variables.
    File(String),
    /// Waypost, such as the address of the registry.
    Waypost,
    /// The description of the service itself.
    Service,
}

impl fmt::Display for VariableSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell => f.write_str("shell"),
            Self::File(name) => write!(f, "env-file {name}"),
            Self::Waypost => f.write_str("waypost"),
            Self::Service => f.write_str("env"),
        }
    }
}

/// When a program that exited on its own is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartRule {
    /// After an exit code other than 0 or a signal.
    Crash,
    /// After any exit.
    Always,
    /// Never.
    Never,
}

/// A signal that requests a program to exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum StopSignal {
    /// SIGTERM.
    #[default]
    Term,
    /// SIGINT, as Ctrl-C sends.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGKILL: at once, without a chance to clean up.
    Kill,
}

impl StopSignal {
    pub(crate) fn signal(self) -> Signal {
        match self {
            Self::Term => Signal::TERM,
            Self::Int => Signal::INT,
            Self::Quit => Signal::QUIT,
            Self::Hup => Signal::HUP,
            Self::Usr1 => Signal::USR1,
            Self::Usr2 => Signal::USR2,
            Self::Kill => Signal::KILL,
        }
    }
}

/// Why a service can't be started, and what to do about it.
#[derive(Clone, Debug)]
pub(crate) struct Blocked {
    pub(crate) reason: String,
    pub(crate) advice: String,
}

/// What is shown about a service. It has no effect on how the service is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ServiceDetails {
    /// Whether it is a part of Waypost, such as the registry.
    pub built_in: bool,
    /// The URL at which others reach it, for example through a gateway.
    pub url: Option<String>,
    /// The services that it calls.
    pub uses: Vec<String>,
    /// Links to show with it, by title.
    pub links: BTreeMap<String, String>,
    /// The profiles that it belongs to.
    pub profiles: Vec<String>,
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
            external: None,
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: Vec::new(),
            replicas: None,
            after: Vec::new(),
            ready: None,
            start_timeout: Duration::from_secs(30),
            restart: RestartRule::Always,
            stop_signal: StopSignal::Term,
            stop_grace: Duration::from_secs(10),
            is_enabled: true,
            blocked: None,
            build: Vec::new(),
            watch: None,
            details: ServiceDetails::default(),
        }
    }

    /// A service that runs elsewhere, at this host and port. Nothing is started; it is checked, and
    /// counts as unhealthy if it can't be reached within 3 s (see
    /// [`start_timeout`](Self::start_timeout)).
    ///
    /// ```
    /// use waypost_runner::ServiceSpec;
    ///
    /// let postgres = ServiceSpec::external("postgres", "localhost", 5432);
    /// ```
    pub fn external(name: impl Into<String>, host: impl Into<String>, port: u16) -> Self {
        let mut spec = Self::new(name, "").port(port);
        spec.external = Some(host.into());
        spec.start_timeout(Duration::from_secs(3))
    }

    /// Adds arguments. They may contain placeholders.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable, in addition to the runner's own environment. The value may
    /// contain placeholders.
    pub fn env(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variable(name, value, VariableSource::Service)
    }

    /// Like [`env`](Self::env), with the source of the variable. A later variable replaces an earlier
    /// one with the same name.
    pub fn variable(
        mut self,
        name: impl Into<String>,
        value: impl Into<String>,
        source: VariableSource,
    ) -> Self {
        self.env.push(Variable {
            name: name.into(),
            value: value.into(),
            source,
        });
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

    /// When a program that exited on its own is restarted; default: [`RestartRule::Always`]. If it isn't
    /// restarted, its state is stopped after exit code 0, and failed otherwise.
    pub fn restart(mut self, rule: RestartRule) -> Self {
        self.restart = rule;
        self
    }

    /// The signal that requests the program to exit; default: SIGTERM.
    pub fn stop_signal(mut self, signal: StopSignal) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Does not start the service with the stack, only by
    /// [`Supervisor::start_service`](crate::Supervisor::start_service). Services that come after it
    /// don't wait for it until then.
    pub fn disabled(mut self) -> Self {
        self.is_enabled = false;
        self
    }

    /// Makes the service fail instead of starting it, for a reason known beforehand, such as a missing
    /// variable. `advice` says what to do about it.
    pub fn blocked(mut self, reason: impl Into<String>, advice: impl Into<String>) -> Self {
        self.blocked = Some(Blocked {
            reason: reason.into(),
            advice: advice.into(),
        });
        self
    }

    /// A command that builds the program, in the same folder and with the same variables: before the
    /// first start, and after a change of a file that is [watched](Self::watch). If it fails, the
    /// service fails, or the program of the previous build keeps running. The words may contain
    /// placeholders.
    pub fn build(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.build = words.into_iter().map(Into::into).collect();
        self
    }

    /// Restarts the service when files change.
    pub fn watch(mut self, watch: WatchSpec) -> Self {
        self.watch = Some(watch);
        self
    }

    /// What is shown about the service.
    pub fn details(mut self, details: ServiceDetails) -> Self {
        self.details = details;
        self
    }

    /// How long an instance may take to exit after the signal before it gets SIGKILL; default: 10 s.
    pub fn stop_grace(mut self, grace: Duration) -> Self {
        self.stop_grace = grace;
        self
    }

    /// Whether it runs elsewhere, so that the stack doesn't start it; see [`external`](Self::external).
    pub fn is_external(&self) -> bool {
        self.external.is_some()
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
        if self.program.is_empty() && self.external.is_none() {
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
        for Variable { name, .. } in &self.env {
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
        let variables = self.variables(&instance, replica, ports);
        let expand = |field: String, template: &str| {
            let expanded = variables.expand(template);
            expanded.map_err(|problem| self.invalid(field, problem))
        };
        let args = self.args.iter().enumerate();
        let args = args.map(|(index, arg)| expand(format!("args[{index}]"), arg));
        let env = self.env.iter().map(|variable| {
            let value = match variable.source {
                // Files of variables are not written for Waypost, so their values are used literally.
                VariableSource::File(_) => variable.value.clone(),
                _ => expand(format!("env {}", variable.name), &variable.value)?,
            };
            Ok((variable.name.clone(), value))
        });
        let env: Vec<_> = env.collect::<Result<_, _>>()?;
        let check = self.probe().check(&variables, &env, self.dir.as_deref());
        Ok(Launch {
            program: self.program.clone(),
            args: args.collect::<Result<_, _>>()?,
            env,
            dir: self.dir.clone(),
            check: check.map_err(|problem| self.invalid("ready", problem))?,
            instance,
        })
    }

    fn variables<'a>(&'a self, instance: &'a str, replica: u32, ports: &'a Ports) -> Variables<'a> {
        Variables {
            service: &self.name,
            instance,
            replica,
            host: match &self.external {
                Some(host) => host.clone(),
                None => self.host.to_string(),
            },
            ports,
        }
    }

    pub(crate) fn has_build(&self) -> bool {
        !self.build.is_empty()
    }

    /// The command that builds the program.
    ///
    /// # Errors
    /// The same as for [`launch`](Self::launch).
    pub(crate) fn build_launch(&self) -> Result<Launch, BuildError> {
        let ports = Ports::new(&self.ports, 1);
        let launch = self.launch(1, &ports)?;
        let variables = self.variables(&launch.instance, 1, &ports);
        let words = self.build.iter().map(|word| variables.expand(word));
        let words = words.collect::<Result<Vec<_>, _>>();
        let mut words = words
            .map_err(|problem| self.invalid("build", problem))?
            .into_iter();
        Ok(Launch {
            program: words.next().unwrap_or_default().into(),
            args: words.collect(),
            ..launch
        })
    }

    /// The variables that an instance is started with in addition to the runner's own, each with its
    /// source. If a name occurs more than once, the last value counts.
    pub(crate) fn environment(&self, launch: &Launch) -> Vec<(String, String, VariableSource)> {
        let mut all: Vec<(String, String, VariableSource)> = Vec::new();
        for (variable, (name, value)) in self.env.iter().zip(&launch.env) {
            all.retain(|(known, ..)| known != name);
            all.push((name.clone(), value.clone(), variable.source.clone()));
        }
        all
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

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ServiceSpec {
        ServiceSpec::new("web", "web")
    }

    #[test]
    fn a_description_that_can_not_work_is_refused() {
        let external = || ServiceSpec::external("db", "localhost", 1);
        for (spec, expected) in [
            (
                ServiceSpec::new("", "x"),
                "service ``, name: must consist of letters",
            ),
            (
                ServiceSpec::new("a b", "x"),
                "service `a b`, name: must consist of letters",
            ),
            (
                ServiceSpec::new("web", ""),
                "service `web`, program: is empty",
            ),
            (
                web().replicas(0),
                "service `web`, replicas: must be at least 1",
            ),
            (
                web().start_timeout(Duration::ZERO),
                "service `web`, start_timeout: must be longer than 0",
            ),
            (web().port(1).port(2), "service `web`, port: is set twice"),
            (
                web()
                    .named_port("a", 1, Transport::Tcp)
                    .named_port("a", 2, Transport::Udp),
                "service `web`, named_port \"a\": is set twice",
            ),
            (
                web().env("", "x"),
                "service `web`, env \"\": is not a valid variable name",
            ),
            (
                web().env("A=B", "x"),
                "service `web`, env \"A=B\": is not a valid",
            ),
            (
                web().env("A\0", "x"),
                "service `web`, env \"A\\0\": is not a valid",
            ),
        ] {
            let error = spec.validate().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let named = web().port(1).named_port("a", 1, Transport::Tcp);
        for spec in [web(), external(), named, ServiceSpec::new("A.b-c_1", "x")] {
            spec.validate().unwrap();
        }
        assert!(external().is_external() && !web().is_external());
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let file = || VariableSource::File(".env".to_owned());
        let spec = web()
            .port(80)
            .variable("A", "{port}", file())
            .variable("B", "{port}", VariableSource::Waypost)
            .env("A", "{name}");
        let launch = spec.launch(1, &Ports::new(&spec.ports, 1)).unwrap();
        let all = spec.environment(&launch);
        let all: Vec<_> = all
            .iter()
            .map(|(name, value, source)| format!("{name}={value} # {source}"))
            .collect();
        assert_eq!(all, ["B=80 # waypost", "A=web # env"]);
        assert_eq!(file().to_string(), "env-file .env");
        assert_eq!(VariableSource::Shell.to_string(), "shell");
    }

    #[test]
    fn an_instance_has_a_number_unless_it_is_the_only_one() {
        assert_eq!(web().instance_name(1), "web");
        assert_eq!(web().instance_name(2), "web-2");
        assert_eq!(web().replicas(1).instance_name(1), "web-1");
        assert_eq!(web().replicas(3).initial_replicas().count(), 3);
    }

    #[test]
    fn the_default_probe_is_the_port_or_that_it_runs() {
        assert!(web().probe().is_running());
        assert!(
            web()
                .named_port("dns", 1, Transport::Udp)
                .probe()
                .is_running()
        );
        assert!(!web().port(80).probe().is_running());
        assert!(web().ready(Probe::completed()).probe().is_completed());
    }

    #[test]
    fn a_build_runs_in_the_folder_and_with_the_variables_of_the_program() {
        let spec = web()
            .port(80)
            .dir("/x")
            .env("A", "{port}")
            .build(["make", "{name}"]);
        assert!(spec.has_build() && !web().has_build());
        let launch = spec.build_launch().unwrap();
        assert_eq!(
            (launch.program, launch.args),
            ("make".into(), vec!["web".to_owned()])
        );
        assert_eq!(launch.dir, Some(PathBuf::from("/x")));
        assert_eq!(launch.env, [("A".to_owned(), "80".to_owned())]);
        let error = web().build(["make", "{port}"]).build_launch().unwrap_err();
        let expected = "service `web`, build: {port} is used, but the service has no main port";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn each_signal_is_the_one_of_its_name() {
        for (signal, name) in [
            (StopSignal::Term, "TERM"),
            (StopSignal::Int, "INT"),
            (StopSignal::Quit, "QUIT"),
            (StopSignal::Hup, "HUP"),
            (StopSignal::Usr1, "USR1"),
            (StopSignal::Usr2, "USR2"),
            (StopSignal::Kill, "KILL"),
        ] {
            let read: StopSignal = serde_json::from_value(name.into()).unwrap();
            assert_eq!(read, signal);
            assert!(
                format!("{:?}", signal.signal()).contains(name),
                "{:?}",
                signal.signal()
            );
        }
    }
}
