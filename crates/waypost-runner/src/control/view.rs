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
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::instance::initial_status;
    use crate::probe::Probe;

    /// 2026-01-31T12:00:00Z
    fn noon() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800)
    }

    fn web() -> ServiceSpec {
        ServiceSpec::new("web", "web").port(8000)
    }

    fn waiting(on: &[&str]) -> InstanceState {
        let on = on.iter().map(|name| (*name).to_owned()).collect();
        InstanceState::Waiting { on }
    }

    /// The status of a replica since noon.
    fn status(spec: &ServiceSpec, replica: u32, state: InstanceState) -> InstanceStatus {
        InstanceStatus {
            state,
            since: noon(),
            ..initial_status(spec, replica, true)
        }
    }

    fn view(spec: &ServiceSpec, statuses: &[InstanceStatus]) -> ServiceView {
        let last_error = |instance: &str| Some(format!("the last error of {instance}"));
        service_view(spec, statuses, |_| Extra::default(), last_error)
    }

    /// The view of a service with one instance for each of these states.
    fn view_of(spec: &ServiceSpec, states: &[InstanceState]) -> ServiceView {
        let replicas = (1..).zip(states);
        let statuses: Vec<_> = replicas
            .map(|(replica, state)| status(spec, replica, state.clone()))
            .collect();
        view(spec, &statuses)
    }

    #[test]
    fn the_state_of_an_instance_depends_on_what_kind_of_service_it_is() {
        let runs = || web().ready(Probe::running());
        let once = || web().ready(Probe::completed());
        let external = || ServiceSpec::external("web", "localhost", 80);
        let looping = InstanceState::CrashLooping { crashes: 2 };
        for (spec, state, expected) in [
            (web(), InstanceState::Disabled, ServiceState::Disabled),
            (web(), waiting(&["db"]), ServiceState::Waiting),
            (web(), InstanceState::Building, ServiceState::Building),
            (web(), InstanceState::Starting, ServiceState::Starting),
            (web(), InstanceState::Healthy, ServiceState::Ready),
            (runs(), InstanceState::Healthy, ServiceState::Running),
            (external(), InstanceState::Healthy, ServiceState::Ready),
            (web(), InstanceState::Unhealthy, ServiceState::Degraded),
            (
                external(),
                InstanceState::Unhealthy,
                ServiceState::Unreachable,
            ),
            (web(), looping, ServiceState::CrashLooping),
            (once(), InstanceState::Completed, ServiceState::Completed),
            (web(), InstanceState::Failed, ServiceState::Failed),
            (web(), InstanceState::Stopping, ServiceState::Stopping),
            (web(), InstanceState::Stopped, ServiceState::Stopped),
        ] {
            assert_eq!(view_of(&spec, std::slice::from_ref(&state)).state, expected);
        }
        for (spec, pid, next_start, expected) in [
            // A task runs until it completes, so it is not starting all the time.
            (once(), Some(7), None, ServiceState::Running),
            (once(), None, None, ServiceState::Starting),
            (web(), Some(7), None, ServiceState::Starting),
            // It has crashed once.
            (web(), None, Some(noon()), ServiceState::Failed),
        ] {
            let mut status = status(&spec, 1, InstanceState::Starting);
            (status.pid, status.next_start) = (pid, next_start);
            assert_eq!(view(&spec, &[status]).state, expected);
        }
    }

    #[test]
    fn a_service_has_the_worst_state_of_its_instances_except_for_stopped_ones() {
        use InstanceState::{Disabled, Failed, Healthy, Starting, Stopped, Unhealthy};
        let web = web().replicas(2);
        for (states, state, ready, wanted) in [
            (vec![], ServiceState::Stopped, 0, 0),
            (vec![Healthy, Healthy], ServiceState::Ready, 2, 2),
            (vec![Healthy, Starting], ServiceState::Degraded, 1, 2),
            (vec![Healthy, Failed], ServiceState::Degraded, 1, 2),
            (vec![Unhealthy, Starting], ServiceState::Degraded, 0, 2),
            (vec![Starting, Failed], ServiceState::Failed, 0, 2),
            (vec![Healthy, Stopped], ServiceState::Ready, 1, 1),
            (vec![Disabled, Healthy], ServiceState::Ready, 1, 1),
            (vec![Stopped, Failed], ServiceState::Failed, 0, 1),
            (vec![Stopped, Disabled], ServiceState::Stopped, 0, 0),
            (vec![Disabled], ServiceState::Disabled, 0, 0),
        ] {
            let view = view_of(&web, &states);
            assert_eq!((view.ready, view.wanted), (ready, wanted), "{states:?}");
            assert_eq!(view.state, state, "{states:?}");
        }
        let others = [status(&ServiceSpec::new("other", "x"), 1, Failed)];
        assert_eq!(view(&web, &others).instances, []);
    }

    #[test]
    fn a_ready_service_is_so_since_its_last_instance_and_a_bad_one_since_its_worst() {
        let web = web().replicas(2);
        let mut statuses = [1, 2].map(|replica| status(&web, replica, InstanceState::Healthy));
        statuses[1].since += Duration::from_millis(61_500);
        assert_eq!(view(&web, &statuses).since, "2026-01-31T12:01:01.500Z");
        statuses[0].state = InstanceState::Failed;
        assert_eq!(view(&web, &statuses).since, "2026-01-31T12:00:00.000Z");
        assert_eq!(view(&web, &[]).since, "");
    }

    #[test]
    fn the_reason_is_that_of_the_worst_instance_with_its_name_if_there_are_several() {
        let web = web().replicas(2);
        let mut statuses = [1, 2].map(|replica| status(&web, replica, InstanceState::Failed));
        statuses[1].reason = Some("exited\n  with code 1".to_owned());
        statuses[0].state = InstanceState::Healthy;
        let both = view(&web, &statuses);
        assert_eq!(both.why.as_deref(), Some("web-2: exited with code 1"));
        assert_eq!(both.last_error.as_deref(), Some("the last error of web-2"));
        assert_eq!(both.instances[1].why.as_deref(), Some("exited with code 1"));
        let one = view(&web, &statuses[1..]);
        assert_eq!(one.why.as_deref(), Some("exited with code 1"));
        assert_eq!(one.last_error.as_deref(), Some("the last error of web-2"));
        let partly = view_of(&web, &[InstanceState::Starting, InstanceState::Healthy]);
        assert_eq!(
            partly.last_error.as_deref(),
            Some("the last error of web-1")
        );
        // Only a problem has a last error.
        assert_eq!(view(&web, &statuses[..1]).last_error, None);
        assert_eq!(view_of(&web, &[InstanceState::Starting]).last_error, None);

        // The first instance of a service that was scaled up has the name of the service.
        let web = self::web();
        let mut statuses = [1, 2].map(|replica| status(&web, replica, InstanceState::Failed));
        statuses[0].reason = Some("exited".to_owned());
        statuses[1].state = InstanceState::Healthy;
        assert_eq!(view(&web, &statuses).why.as_deref(), Some("exited"));
    }

    #[test]
    fn an_instance_says_why_it_is_not_ready() {
        type Change = fn(&mut InstanceStatus);
        let cases: [(Change, InstanceState, Option<&str>); 8] = [
            (
                |_| (),
                waiting(&["db", "cache"]),
                Some("waits for db, cache"),
            ),
            // Such as "after 0.4 s".
            (
                |status| status.reason = Some("after 3 ms".to_owned()),
                InstanceState::Healthy,
                None,
            ),
            (
                |status| status.build_error = Some("the build\nfailed".to_owned()),
                InstanceState::Healthy,
                Some("the build failed; the program of the previous build is still running"),
            ),
            (
                |status| status.last_check = Some("no line\n matches".to_owned()),
                InstanceState::Starting,
                Some("is not ready yet: no line matches"),
            ),
            (|_| (), InstanceState::Starting, None),
            (
                |status| {
                    status.last_check = Some("refused".to_owned());
                    status.reason = Some("exited with code 1".to_owned());
                    status.next_start = Some(SystemTime::UNIX_EPOCH);
                },
                InstanceState::Starting,
                Some("exited with code 1"),
            ),
            (
                |status| status.reason = Some("killed by SIGKILL".to_owned()),
                InstanceState::Stopped,
                Some("killed by SIGKILL"),
            ),
            (|_| (), InstanceState::Stopped, None),
        ];
        for (change, state, why) in cases {
            let mut status = status(&web(), 1, state.clone());
            change(&mut status);
            assert_eq!(view(&web(), &[status]).why.as_deref(), why, "{state:?}");
        }
    }

    #[test]
    fn a_dependency_that_can_not_become_ready_is_named_with_its_state() {
        let db = ServiceSpec::new("db", "db").replicas(2);
        let other = ServiceSpec::new("other", "other");
        for (states, why) in [
            (
                [InstanceState::Healthy, InstanceState::Failed],
                "waits for db, which is failed",
            ),
            (
                [InstanceState::Stopped, InstanceState::Stopped],
                "waits for db, which is stopped",
            ),
            (
                [InstanceState::Unhealthy, InstanceState::Healthy],
                "waits for db, which is unhealthy",
            ),
            (
                [
                    InstanceState::CrashLooping { crashes: 3 },
                    InstanceState::Starting,
                ],
                "waits for db, which is crash-looping (3×)",
            ),
            (
                [InstanceState::Starting, InstanceState::Building],
                "waits for db",
            ),
        ] {
            let statuses = [
                status(&other, 1, InstanceState::Failed),
                status(&web(), 1, waiting(&["db"])),
                status(&db, 1, states[0].clone()),
                status(&db, 2, states[1].clone()),
            ];
            assert_eq!(view(&web(), &statuses).why.as_deref(), Some(why));
        }
    }

    #[test]
    fn a_problem_comes_with_advice() {
        let external = ServiceSpec::external("db", "localhost", 5432);
        let output = "see its output: waypost logs web";
        let looping = || InstanceState::CrashLooping { crashes: 2 };
        for (spec, state, reason, advice) in [
            (web(), looping(), "exited with code 1", Some(output)),
            (
                web(),
                InstanceState::Failed,
                "exited with code 1",
                Some(output),
            ),
            (
                web(),
                InstanceState::Failed,
                "cannot run `wbe`: No such file or directory",
                Some("is the program installed, and is its path right?"),
            ),
            (
                web(),
                looping(),
                "port 80 of `web` is in use by pid 7 (nginx)",
                Some("stop that process, or give the service another port"),
            ),
            (
                web(),
                InstanceState::Unhealthy,
                "cannot connect",
                Some(output),
            ),
            (
                external,
                InstanceState::Unhealthy,
                "cannot connect",
                Some("is it running?"),
            ),
            (web(), waiting(&["db"]), "", None),
            (web(), InstanceState::Starting, "", None),
            (web(), InstanceState::Healthy, "", None),
            (web(), InstanceState::Stopped, "", None),
        ] {
            let mut status = status(&spec, 1, state.clone());
            status.reason = Some(reason.to_owned());
            let view = view(&spec, &[status]);
            assert_eq!(view.advice.as_deref(), advice, "{state:?}: {reason}");
        }
        let mut blocked = status(&web(), 1, InstanceState::Failed);
        blocked.advice = Some("add it to .env".to_owned());
        let view = view(&web(), &[blocked]);
        assert_eq!(view.advice.as_deref(), Some("add it to .env"));
    }

    #[test]
    fn a_service_that_waits_is_started_by_what_it_waits_for() {
        let db = ServiceSpec::new("db", "db");
        let cache = ServiceSpec::new("cache", "cache");
        for (db_state, cache_state, advice) in [
            (InstanceState::Failed, InstanceState::Healthy, Some("db")),
            (
                InstanceState::Healthy,
                InstanceState::Stopped,
                Some("cache"),
            ),
            // These may still become ready.
            (InstanceState::Starting, InstanceState::Unhealthy, None),
        ] {
            let statuses = [
                status(&db, 1, db_state),
                status(&cache, 1, cache_state),
                status(&web(), 1, waiting(&["db", "cache"])),
            ];
            let advice = advice.map(|name| format!("start it: waypost restart {name}"));
            assert_eq!(view(&web(), &statuses).advice, advice);
        }
    }

    #[test]
    fn a_service_has_the_sums_of_its_instances_and_the_address_of_the_first() {
        let web = web().replicas(3);
        let mut statuses = [1, 2, 3].map(|replica| status(&web, replica, InstanceState::Healthy));
        (statuses[0].restarts, statuses[2].restarts) = (1, 3);
        statuses[1].port = Some(20_001);
        let extra = |status: &InstanceStatus| match status.replica {
            1 => Extra::default(),
            replica => Extra {
                cpu_percent: Some(1.5),
                memory_bytes: Some(1024 * u64::from(replica)),
                registered: Some(replica == 2),
            },
        };
        let view = service_view(&web, &statuses, extra, |_| None);
        assert_eq!(view.restarts, 4);
        assert_eq!(view.cpu_percent, Some(3.0));
        assert_eq!(view.memory_bytes, Some(5 * 1024));
        assert_eq!(view.address.as_deref(), Some("localhost:8000"));
        let registered = view.instances.iter().map(|instance| instance.registered);
        assert_eq!(
            registered.collect::<Vec<_>>(),
            [None, Some(true), Some(false)]
        );
        let ports = view.instances.iter().map(|instance| instance.port);
        assert_eq!(ports.collect::<Vec<_>>(), [Some(8000), Some(20_001), None]);

        let healthy = [InstanceState::Healthy];
        for (spec, address) in [
            (
                web.clone().host("0.0.0.0".parse().unwrap()),
                Some("0.0.0.0:8000"),
            ),
            (
                ServiceSpec::external("db", "db.example", 5432),
                Some("db.example:5432"),
            ),
            (ServiceSpec::new("worker", "worker"), None),
        ] {
            let view = view_of(&spec, &healthy);
            assert_eq!(view.address.as_deref(), address);
            assert_eq!((view.cpu_percent, view.memory_bytes), (None, None));
        }
    }

    #[test]
    fn the_end_of_a_program_is_shown_by_its_code_or_its_signal() {
        for (exit, code, signal) in [
            (ExitStatus::Code(3), Some(3), None),
            (ExitStatus::Signal("KILL".to_owned()), None, Some("KILL")),
        ] {
            let mut status = status(&web(), 1, InstanceState::Starting);
            status.exit = Some(exit);
            status.started = Some(noon());
            status.next_start = Some(noon() + Duration::from_secs(2));
            let instance = &view(&web(), &[status]).instances[0];
            let exit = instance.exit.as_ref().unwrap();
            assert_eq!((exit.code, exit.signal.as_deref()), (code, signal));
            assert_eq!(
                instance.started_at.as_deref(),
                Some("2026-01-31T12:00:00.000Z")
            );
            assert_eq!(
                instance.next_start_at.as_deref(),
                Some("2026-01-31T12:00:02.000Z")
            );
        }
    }

    #[test]
    fn a_service_is_of_one_of_four_kinds() {
        let built_in = crate::service::ServiceDetails {
            built_in: true,
            ..Default::default()
        };
        for (spec, kind) in [
            (web().details(built_in), "builtin"),
            (ServiceSpec::external("web", "localhost", 80), "external"),
            (web().ready(Probe::completed()), "once"),
            (web(), "process"),
        ] {
            assert_eq!(json!(view_of(&spec, &[]).kind), kind);
        }
    }

    #[test]
    fn a_state_has_the_same_name_in_json_and_in_text() {
        let from_worst = [
            "crash-looping",
            "failed",
            "unreachable",
            "degraded",
            "building",
            "starting",
            "waiting",
            "stopping",
            "stopped",
            "disabled",
            "running",
            "ready",
            "completed",
        ];
        for (index, name) in from_worst.into_iter().enumerate() {
            let state: ServiceState = serde_json::from_value(json!(name)).unwrap();
            assert_eq!(state.name(), name);
            assert_eq!(state.is_trouble(), index < 4, "{name}");
        }
    }

    #[test]
    fn a_line_has_its_source_its_level_and_a_mark_if_it_was_cut() {
        let line = |stream, truncated| Line {
            stream,
            truncated,
            ..Line::sample("ERROR no database")
        };
        let cut = "ERROR no database … (truncated at 64 KiB)";
        for (stream, truncated, source, level, text) in [
            (
                Stream::Stdout,
                false,
                "stdout",
                Some(Level::Error),
                "ERROR no database",
            ),
            (Stream::Stderr, true, "stderr", Some(Level::Error), cut),
            (Stream::Runner, false, "event", None, "ERROR no database"),
        ] {
            let live = LineView::from(&line(stream, truncated));
            assert_eq!(json!(live.stream), source);
            assert_eq!((live.level, live.text.as_str()), (level, text));
            assert_eq!(live.time, "1970-01-01T00:00:00.000Z");
            let kept = KeptLine {
                at: noon(),
                instance: "web-2".to_owned(),
                stream,
                text: text.to_owned(),
            };
            let kept = kept.view("web");
            assert_eq!(
                (kept.service.as_str(), kept.instance.as_str()),
                ("web", "web-2")
            );
            assert_eq!((kept.level, kept.stream), (level, live.stream));
            assert_eq!(
                (kept.time.as_str(), kept.text.as_str()),
                ("2026-01-31T12:00:00.000Z", text)
            );
        }
    }

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
            ("DATABASE_URL", "postgres://app@localhost/shop", false),
            ("DATABASE_URL", "postgres://a:b@c:pw@localhost", true),
            ("CACHE", "redis://:pw@localhost?db=1", true),
            ("apikey", "x", true),
            ("my_passwd", "x", true),
            ("PASSPHRASE", "x", true),
            ("AWS_CREDENTIALS", "x", true),
            ("PRIVATE_PEM", "x", true),
            ("CLIENT_SECRET", "x", true),
            ("HOMEPAGE", "http://x/@a:b", false),
        ] {
            assert_eq!(is_secret(name, value), secret, "{name}={value}");
        }
    }
}
