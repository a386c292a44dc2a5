//! The JSON types of the control API.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::log::{KeptLine, Level, Line, Stream};
use crate::service::ServiceSpec;
use crate::status::{ExitStatus, InstanceState, InstanceStatus};

/// The version of the JSON. It is incremented when a field is removed or changes its meaning.
pub const SCHEMA: u32 = 1;

/// A stack and all its services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StackView {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The name of the stack.
    pub name: String,
    /// The stack file; `None` for the sample.
    pub file: Option<String>,
    /// The folder of the stack file, or the one that the sample was started in.
    pub directory: String,
    /// When the stack was started (RFC 3339).
    pub started_at: String,
    /// The number of the latest change; see `/api/events`.
    pub event_id: u64,
    /// The process id of the runner.
    pub pid: u32,
    /// The URL of the registry.
    pub registry: String,
    /// The URL of the gateway.
    pub gateway: Option<String>,
    /// The URL of the dashboard.
    pub dashboard: Option<String>,
    /// The services: first those of Waypost itself, then the others in the order of the stack file.
    pub services: Vec<ServiceView>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServiceView {
    /// The name.
    pub name: String,
    /// What kind of service it is.
    pub kind: ServiceKind,
    /// Its state, derived from those of its instances.
    pub state: ServiceState,
    /// When it entered this state (RFC 3339).
    pub since: String,
    /// The reason for the state, in one line.
    pub why: Option<String>,
    /// What to do about a problem.
    pub advice: Option<String>,
    /// The last line of its output that reports an error. Only set while the service has a problem.
    pub last_error: Option<String>,
    /// How many instances are ready (or have completed).
    pub ready: usize,
    /// How many instances should be ready.
    pub wanted: usize,
    /// `HOST:PORT` of the first instance.
    pub address: Option<String>,
    /// The URL under which other programs reach it.
    pub url: Option<String>,
    /// The restarts of all instances.
    pub restarts: u32,
    /// In percent of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// The services that must be ready (or started, or completed) before it starts.
    pub after: Vec<String>,
    /// The services that it calls.
    pub uses: Vec<String>,
    /// Links, by title.
    pub links: BTreeMap<String, String>,
    /// The profiles that it belongs to.
    pub profiles: Vec<String>,
    /// Its instances.
    pub instances: Vec<InstanceView>,
}

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstanceView {
    /// Its name, such as `orders-2`.
    pub id: String,
    /// Its state.
    pub state: ServiceState,
    /// When it entered this state (RFC 3339).
    pub since: String,
    /// The process id while it runs.
    pub pid: Option<u32>,
    /// The port that it listens on.
    pub port: Option<u16>,
    /// The number of restarts.
    pub restarts: u32,
    /// How its last run ended.
    pub exit: Option<ExitView>,
    /// When it will be restarted (RFC 3339). Only set during the delay after a crash.
    pub next_start_at: Option<String>,
    /// In percent of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory.
    pub memory_bytes: Option<u64>,
    /// The reason for the state, in one line.
    pub why: Option<String>,
    /// When the program was started (RFC 3339).
    pub started_at: Option<String>,
    /// Whether it is registered. `None` if the runner doesn't know, as for a program that registers
    /// itself.
    pub registered: Option<bool>,
}

/// How a program ended. Either `code` or `signal` is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExitView {
    /// The exit code.
    pub code: Option<i32>,
    /// The signal, such as `KILL`.
    pub signal: Option<String>,
}

/// The kind of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// A program that keeps running.
    Process,
    /// A one-time task, such as a migration.
    Once,
    /// Something that is not started by the stack.
    External,
    /// A part of Waypost.
    Builtin,
}

/// The state of a service or an instance, ordered from the worst to the best. The state of a service is
/// derived from the worst state of its instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    /// It crashes again and again.
    CrashLooping,
    /// It ended with an error, or can't be started.
    Failed,
    /// Something external that can't be reached.
    Unreachable,
    /// It runs but isn't ready any more, or some of its instances aren't.
    Degraded,
    /// It is being built.
    Building,
    /// It runs and isn't ready yet.
    Starting,
    /// It waits for other services.
    Waiting,
    /// It was requested to stop and has not exited yet.
    Stopping,
    /// It is stopped.
    Stopped,
    /// It was not started with the stack.
    Disabled,
    /// It runs, and has no check of its readiness.
    Running,
    /// It is ready.
    Ready,
    /// A one-time task has succeeded.
    Completed,
}

impl ServiceState {
    /// The name used in the JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::CrashLooping => "crash-looping",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Degraded => "degraded",
            Self::Building => "building",
            Self::Starting => "starting",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Completed => "completed",
        }
    }

    /// Whether there is a problem that needs attention.
    pub fn is_trouble(self) -> bool {
        self <= Self::Degraded
    }
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LineView {
    /// Its number in the order in which all lines were read.
    pub id: u64,
    /// When it was read (RFC 3339).
    pub time: String,
    /// The service.
    pub service: String,
    /// The instance.
    pub instance: String,
    /// Its source.
    pub stream: LineStream,
    /// The level that is named in the text.
    pub level: Option<Level>,
    /// The text as the program wrote it. Escape it before showing it.
    pub text: String,
}

/// The source of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The runner: a change of the instance's state.
    Event,
}

/// A variable of the environment that a service is started with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct VariableView {
    /// The name.
    pub name: String,
    /// The value, or `***` if it is likely to be secret.
    pub value: String,
    /// Whether the value is hidden.
    pub masked: bool,
    /// Its source: `waypost`, `env`, `env-file PATH` or `shell`.
    pub source: String,
}

/// The folder and variables with which a program is started. Only available on the socket, since values
/// are not masked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LaunchView {
    /// The working folder.
    pub directory: PathBuf,
    /// The variables in addition to those of the shell.
    pub environment: BTreeMap<String, String>,
}

impl From<&Line> for LineView {
    fn from(line: &Line) -> Self {
        let mark = if line.truncated {
            " … (truncated at 64 KiB)"
        } else {
            ""
        };
        Self {
            id: line.id,
            time: rfc3339(line.at),
            service: line.service.to_string(),
            instance: line.instance.to_string(),
            stream: line.stream.into(),
            level: line.level(),
            text: format!("{}{mark}", line.text),
        }
    }
}

impl KeptLine {
    /// Converts a line of `service`.
    pub fn view(&self, service: &str) -> LineView {
        LineView {
            id: 0,
            time: rfc3339(self.at),
            service: service.to_owned(),
            instance: self.instance.clone(),
            stream: self.stream.into(),
            level: match self.stream {
                Stream::Stdout | Stream::Stderr => Level::of(&self.text),
                Stream::Runner => None,
            },
            text: self.text.clone(),
        }
    }
}

impl From<Stream> for LineStream {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
            Stream::Runner => Self::Event,
        }
    }
}

/// A time as RFC 3339, in milliseconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// What is known about an instance in addition to its status.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extra {
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) registered: Option<bool>,
}

/// The view of a service. `statuses` are those of all services.
pub(crate) fn service_view(
    spec: &ServiceSpec,
    statuses: &[InstanceStatus],
    extra: impl Fn(&InstanceStatus) -> Extra,
    last_error: impl Fn(&str) -> Option<String>,
) -> ServiceView {
    let mine: Vec<&InstanceStatus> = statuses
        .iter()
        .filter(|status| status.service == spec.name)
        .collect();
    let instances: Vec<InstanceView> = mine
        .iter()
        .map(|status| instance_view(spec, status, statuses, extra(status)))
        .collect();
    let is_ready = |instance: &&InstanceView| instance.state >= ServiceState::Running;
    let is_wanted =
        |state: ServiceState| !matches!(state, ServiceState::Stopped | ServiceState::Disabled);
    let ready = instances.iter().filter(is_ready).count();
    let wanted = instances.iter().filter(|it| is_wanted(it.state)).count();

    let worst = instances
        .iter()
        .filter(|instance| is_wanted(instance.state) || wanted == 0)
        .min_by_key(|instance| instance.state);
    let state = worst.map_or(ServiceState::Stopped, |worst| worst.state);
    // Some instances are ready, and some are not.
    let state = if ready > 0 && ready < wanted {
        ServiceState::Degraded
    } else {
        state
    };
    let since = match state {
        ServiceState::Ready | ServiceState::Running => instances.iter().map(|it| &it.since).max(),
        _ => worst.map(|worst| &worst.since),
    };
    let why = worst.and_then(|worst| {
        let why = worst.why.as_ref()?;
        Some(if instances.len() > 1 && worst.id != spec.name {
            format!("{}: {why}", worst.id)
        } else {
            why.clone()
        })
    });
    let bad = worst.filter(|worst| worst.state.is_trouble() || state == ServiceState::Degraded);
    let sum = |values: &dyn Fn(&InstanceView) -> Option<f64>| {
        instances.iter().filter_map(values).reduce(|a, b| a + b)
    };
    ServiceView {
        name: spec.name.clone(),
        kind: kind(spec),
        state,
        since: since.cloned().unwrap_or_default(),
        why,
        advice: worst.and_then(|worst| {
            let status = mine.iter().find(|status| status.instance == worst.id)?;
            advice(spec, status, worst, statuses)
        }),
        last_error: bad.and_then(|bad| last_error(&bad.id)),
        ready,
        wanted,
        address: address(spec, &mine),
        url: spec.details.url.clone(),
        restarts: instances.iter().map(|instance| instance.restarts).sum(),
        cpu_percent: sum(&|instance| instance.cpu_percent),
        memory_bytes: sum(&|instance| instance.memory_bytes.map(|bytes| bytes as f64))
            .map(|bytes| bytes as u64),
        after: spec.after.iter().map(|it| it.service.clone()).collect(),
        uses: spec.details.uses.clone(),
        links: spec.details.links.clone(),
        profiles: spec.details.profiles.clone(),
        instances,
    }
}

fn kind(spec: &ServiceSpec) -> ServiceKind {
    if spec.details.built_in {
        ServiceKind::Builtin
    } else if spec.external.is_some() {
        ServiceKind::External
    } else if spec.probe().is_completed() {
        ServiceKind::Once
    } else {
        ServiceKind::Process
    }
}

fn address(spec: &ServiceSpec, instances: &[&InstanceStatus]) -> Option<String> {
    let port = instances.first()?.port?;
    Some(match &spec.external {
        Some(host) => format!("{host}:{port}"),
        None if spec.host.is_loopback() => format!("localhost:{port}"),
        None => format!("{}:{port}", spec.host),
    })
}

fn instance_view(
    spec: &ServiceSpec,
    status: &InstanceStatus,
    statuses: &[InstanceStatus],
    extra: Extra,
) -> InstanceView {
    InstanceView {
        id: status.instance.clone(),
        state: instance_state(spec, status),
        since: rfc3339(status.since),
        pid: status.pid,
        port: status.port,
        restarts: status.restarts,
        exit: status.exit.as_ref().map(|exit| match exit {
            ExitStatus::Code(code) => ExitView {
                code: Some(*code),
                signal: None,
            },
            ExitStatus::Signal(signal) => ExitView {
                code: None,
                signal: Some(signal.clone()),
            },
        }),
        next_start_at: status.next_start.map(rfc3339),
        cpu_percent: extra.cpu_percent,
        memory_bytes: extra.memory_bytes,
        why: why(status, statuses),
        started_at: status.started.map(rfc3339),
        registered: extra.registered,
    }
}

fn instance_state(spec: &ServiceSpec, status: &InstanceStatus) -> ServiceState {
    match &status.state {
        InstanceState::Disabled => ServiceState::Disabled,
        InstanceState::Waiting { .. } => ServiceState::Waiting,
        InstanceState::Building => ServiceState::Building,
        // It has crashed, and is not running at the moment.
        InstanceState::Starting if status.next_start.is_some() => ServiceState::Failed,
        InstanceState::Starting if spec.probe().is_completed() && status.pid.is_some() => {
            ServiceState::Running
        }
        InstanceState::Starting => ServiceState::Starting,
        InstanceState::Healthy if spec.probe().is_running() => ServiceState::Running,
        InstanceState::Healthy => ServiceState::Ready,
        InstanceState::Unhealthy if spec.external.is_some() => ServiceState::Unreachable,
        InstanceState::Unhealthy => ServiceState::Degraded,
        InstanceState::CrashLooping { .. } => ServiceState::CrashLooping,
        InstanceState::Completed => ServiceState::Completed,
        InstanceState::Failed => ServiceState::Failed,
        InstanceState::Stopping => ServiceState::Stopping,
        InstanceState::Stopped => ServiceState::Stopped,
    }
}

fn why(status: &InstanceStatus, statuses: &[InstanceStatus]) -> Option<String> {
    match &status.state {
        InstanceState::Waiting { on } => {
            let waits: Vec<String> = on.iter().map(|name| dependency(name, statuses)).collect();
            Some(format!("waits for {}", waits.join(", ")))
        }
        // The reason of a healthy instance, such as "after 0.4 s", explains nothing.
        InstanceState::Healthy => status.build_error.as_ref().map(|problem| {
            format!(
                "{}; the program of the previous build is still running",
                one_line(problem)
            )
        }),
        InstanceState::Starting if status.next_start.is_none() => {
            let check = status.last_check.as_ref();
            check.map(|check| format!("is not ready yet: {}", one_line(check)))
        }
        _ => status.reason.as_deref().map(one_line),
    }
}

/// A dependency that is waited for, with its state unless it is simply starting.
fn dependency(name: &str, statuses: &[InstanceStatus]) -> String {
    let worst = statuses.iter().find(|status| {
        status.service == name
            && matches!(
                status.state,
                InstanceState::Failed
                    | InstanceState::Stopped
                    | InstanceState::Unhealthy
                    | InstanceState::CrashLooping { .. }
            )
    });
    match worst {
        Some(status) => format!("{name}, which is {}", status.state),
        None => name.to_owned(),
    }
}

fn advice(
    spec: &ServiceSpec,
    status: &InstanceStatus,
    view: &InstanceView,
    statuses: &[InstanceStatus],
) -> Option<String> {
    if status.advice.is_some() {
        return status.advice.clone();
    }
    let name = &spec.name;
    match (view.state, &status.state) {
        (ServiceState::CrashLooping | ServiceState::Failed, _) => {
            let reason = status.reason.as_deref().unwrap_or_default();
            Some(if reason.starts_with("cannot run") {
                "is the program installed, and is its path right?".to_owned()
            } else if reason.contains("is in use by") {
                "stop that process, or give the service another port".to_owned()
            } else {
                format!("see its output: waypost logs {name}")
            })
        }
        (ServiceState::Unreachable, _) => Some("is it running?".to_owned()),
        (ServiceState::Degraded, _) => Some(format!("see its output: waypost logs {name}")),
        (ServiceState::Waiting, InstanceState::Waiting { on }) => {
            let failed = on.iter().find(|name| {
                statuses.iter().any(|status| {
                    status.service == **name
                        && matches!(status.state, InstanceState::Failed | InstanceState::Stopped)
                })
            })?;
            Some(format!("start it: waypost restart {failed}"))
        }
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a variable is likely to hold a secret, by its name or by a password in a URL.
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    const WORDS: [&str; 9] = [
        "SECRET",
        "TOKEN",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "CREDENTIAL",
        "PRIVATE",
        "APIKEY",
        "_KEY",
    ];
    let name = name.to_ascii_uppercase();
    let has_password = || {
        let (_, rest) = value.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (user, _) = authority.rsplit_once('@')?;
        user.contains(':').then_some(())
    };
    WORDS.iter().any(|word| name.contains(word)) || has_password().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_recognised_by_name_and_by_value() {
        for (name, value, secret) in [
            ("STRIPE_KEY", "sk_1", true),
            ("github_token", "x", true),
            ("DB_PASSWORD", "x", true),
            ("DATABASE_URL", "postgres://app:pw@localhost/shop", true),
            ("DATABASE_URL", "postgres://localhost/shop", false),
            ("PORT", "4100", false),
            ("KEYBOARD", "de", false),
            ("HOMEPAGE", "http://x/@a:b", false),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name}={value}");
        }
    }
}
