//! The status of an instance that the supervisor reports: its state, the reason for it, and its
//! addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;

use crate::text::rounded;

/// The state of an instance. The crate's documentation describes the
/// [lifecycle](crate#lifecycle-of-an-instance).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstanceState {
    /// Not started with the stack; see [`ServiceSpec::disabled`](crate::ServiceSpec::disabled).
    Disabled,
    /// Not started yet, because a dependency is not ready (or not started).
    Waiting {
        /// The names of the services it waits for.
        on: Vec<String>,
    },
    /// Not started yet, because its program is being built.
    Building,
    /// Started and not healthy yet, or waiting to be restarted after a first crash.
    Starting,
    /// Its probe succeeds.
    Healthy,
    /// It runs, but its probe fails or did not succeed within the start timeout.
    Unhealthy,
    /// It crashed at least twice in a row. The delay before each restart grows.
    CrashLooping {
        /// The number of consecutive crashes; 60 s of health reset it.
        crashes: u32,
    },
    /// A one-time task has succeeded.
    Completed,
    /// It can't be started, or it has failed and is not restarted.
    Failed,
    /// It was requested to stop and has not exited yet.
    Stopping,
    /// It was stopped, or it has exited with code 0 and is not restarted.
    Stopped,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// It was ended by this signal, such as `KILL`.
    Signal(String),
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled => f.write_str("disabled"),
            Self::Building => f.write_str("building"),
            Self::Waiting { on } => write!(f, "waiting for {}", on.join(", ")),
            Self::Starting => f.write_str("starting"),
            Self::Healthy => f.write_str("healthy"),
            Self::Unhealthy => f.write_str("unhealthy"),
            Self::CrashLooping { crashes } => write!(f, "crash-looping ({crashes}×)"),
            Self::Completed => f.write_str("completed"),
            Self::Failed => f.write_str("failed"),
            Self::Stopping => f.write_str("stopping"),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// The status of one instance at one moment. It displays as `state: reason`, followed by the time
/// until a restart if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceStatus {
    /// The service that it is an instance of, such as `ai-models`.
    pub service: String,
    /// The instance, such as `ai-models-2`.
    pub instance: String,
    /// Its number among the replicas of the service, from 1.
    pub replica: u32,
    /// Its state.
    pub state: InstanceState,
    /// The reason for the state: an exit status or the last result of the probe.
    pub reason: Option<String>,
    /// What to do about it, if that is known.
    pub advice: Option<String>,
    /// When it entered the state.
    pub since: SystemTime,
    /// When the program was started; `None` before the first start.
    pub started: Option<SystemTime>,
    /// How the program ended when it last ran.
    pub exit: Option<ExitStatus>,
    /// When it will be restarted. Only set during the delay after a crash.
    pub next_start: Option<SystemTime>,
    /// The result of its last check, until it is ready for the first time.
    pub last_check: Option<String>,
    /// Why the last build failed, while the program of the previous build is running.
    pub build_error: Option<String>,
    /// How long it waits until [`next_start`](Self::next_start).
    pub restart_delay: Option<Duration>,
    /// The process id while it runs. The process leads its own process group.
    pub pid: Option<u32>,
    /// The address that it listens on.
    pub host: IpAddr,
    /// Its main port. `None` without one, and while the runner has yet to choose it.
    pub port: Option<u16>,
    /// Its other ports, by name.
    pub named_ports: BTreeMap<String, u16>,
    /// The number of restarts, after a crash or by [`restart`](crate::Supervisor::restart).
    pub restarts: u32,
}

impl InstanceStatus {
    /// Whether services that depend on it may start: it is healthy or has completed.
    pub fn is_ready(&self) -> bool {
        matches!(
            self.state,
            InstanceState::Healthy | InstanceState::Completed
        )
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.state.fmt(f)?;
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        if let Some(delay) = self.restart_delay {
            write!(f, "; restarting in {}", rounded(delay))?;
        }
        Ok(())
    }
}

/// A subscription to the state changes of all instances, from
/// [`Supervisor::events`](crate::Supervisor::events).
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<InstanceStatus>);

impl Events {
    /// The status of an instance after its next change of state or reason, or `None` once the
    /// supervisor is gone. A reader that falls more than 1,024 changes behind misses the oldest.
    pub async fn next(&mut self) -> Option<InstanceStatus> {
        loop {
            match self.0.recv().await {
                Ok(status) => return Some(status),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::initial_status;
    use crate::service::ServiceSpec;

    #[test]
    fn a_status_is_the_state_its_reason_and_the_time_until_the_restart() {
        let web =
            ServiceSpec::new("web", "web")
                .port(80)
                .named_port("dns", 0, crate::Transport::Udp);
        let mut status = initial_status(&web, 1, true);
        assert_eq!(status.to_string(), "starting");
        // A port that has yet to be chosen is none.
        assert_eq!((status.port, status.named_ports.len()), (Some(80), 0));
        assert!(!status.is_ready());
        status.state = InstanceState::CrashLooping { crashes: 2 };
        status.reason = Some("exited with code 1".to_owned());
        assert_eq!(status.to_string(), "crash-looping (2×): exited with code 1");
        status.restart_delay = Some(Duration::from_secs(4));
        let expected = "crash-looping (2×): exited with code 1; restarting in 4 s";
        assert_eq!(status.to_string(), expected);
    }

    #[test]
    fn an_instance_begins_disabled_waiting_or_starting() {
        let web = || ServiceSpec::new("web", "web");
        let waits = web().after("db").after_started("cache");
        let state = |spec: &ServiceSpec, run| initial_status(spec, 1, run).state;
        assert_eq!(state(&web(), true), InstanceState::Starting);
        let on = ["db", "cache"].map(str::to_owned).to_vec();
        assert_eq!(state(&waits, true), InstanceState::Waiting { on });
        assert_eq!(state(&waits, false), InstanceState::Disabled);
    }

    #[test]
    fn only_a_healthy_or_completed_instance_is_ready() {
        let on = vec!["db".to_owned(), "cache".to_owned()];
        for (state, text, is_ready) in [
            (InstanceState::Disabled, "disabled", false),
            (
                InstanceState::Waiting { on },
                "waiting for db, cache",
                false,
            ),
            (InstanceState::Building, "building", false),
            (InstanceState::Starting, "starting", false),
            (InstanceState::Healthy, "healthy", true),
            (InstanceState::Unhealthy, "unhealthy", false),
            (InstanceState::Completed, "completed", true),
            (InstanceState::Failed, "failed", false),
            (InstanceState::Stopping, "stopping", false),
            (InstanceState::Stopped, "stopped", false),
        ] {
            assert_eq!(state.to_string(), text);
            let mut status = initial_status(&ServiceSpec::new("web", "web"), 1, true);
            status.state = state;
            assert_eq!(status.is_ready(), is_ready, "{text}");
        }
    }

    #[tokio::test]
    async fn a_reader_that_has_fallen_behind_gets_the_events_that_are_left() {
        let sender = broadcast::Sender::new(2);
        let mut events = Events(sender.subscribe());
        let mut status = initial_status(&ServiceSpec::new("web", "web"), 1, true);
        for restarts in 0..5 {
            status.restarts = restarts;
            sender.send(status.clone()).unwrap();
        }
        drop(sender);
        let mut seen = Vec::new();
        while let Some(event) = events.next().await {
            seen.push(event.restarts);
        }
        assert_eq!(seen, [3, 4]);
    }
}
