//! What an instance is doing, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;
use tokio::sync::broadcast;

/// The state of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum State {
    /// Not started yet: other processes must be healthy (or started) first.
    Waiting {
        /// Their names.
        on: Vec<String>,
    },
    /// Started, or about to be started again after a first crash; not healthy yet.
    Starting,
    /// Its probe succeeds.
    Healthy,
    /// It runs, but its probe fails, or did not succeed within the start timeout.
    Unhealthy,
    /// It crashed at least twice in a row and is started again, more slowly each time.
    CrashLooping {
        /// Crashes in a row; 60 s of health reset them.
        crashes: u32,
    },
    /// A step that is done once has succeeded.
    Completed,
    /// A step that is done once has failed, and is not tried again.
    Failed,
    /// It was asked to end.
    Stopping,
    /// It has ended because it was asked to.
    Stopped,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { on } => write!(f, "waiting on {}", on.join(", ")),
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

/// One instance at one moment. Its display form is `state: reason`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The process as it is named in the stack, such as `ai-models`.
    pub service: String,
    /// The instance, such as `ai-models-2`.
    pub instance: String,
    /// Its number, from 1.
    pub replica: u32,
    /// What it is doing.
    #[serde(flatten)]
    pub state: State,
    /// Why: an exit status, or what its probe said last.
    pub reason: Option<String>,
    /// Since when it has been in this state.
    #[serde(serialize_with = "unix_seconds")]
    pub since: SystemTime,
    /// The process id while it runs. It leads a process group of its own.
    pub pid: Option<u32>,
    /// The address that it listens on.
    pub host: IpAddr,
    /// Its main port, once that is known.
    pub port: Option<u16>,
    /// Its further ports by name.
    pub named_ports: BTreeMap<String, u16>,
    /// How often it was started again, by the runner or on demand.
    pub restarts: u32,
}

impl Status {
    /// Whether others may rely on it: healthy, or completed.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Healthy | State::Completed)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "{}: {reason}", self.state),
            None => write!(f, "{}", self.state),
        }
    }
}

fn unix_seconds<S: serde::Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    let since_epoch = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    serializer.serialize_f64((since_epoch.as_secs_f64() * 1000.0).round() / 1000.0)
}

/// Every change of every instance from the moment of [`Running::events`](crate::Running::events).
#[derive(Debug)]
pub struct Events(pub(crate) broadcast::Receiver<Status>);

impl Events {
    /// The status after the next change, or `None` once the stack is gone. A reader that falls more
    /// than 1,024 changes behind misses the oldest of them.
    pub async fn next(&mut self) -> Option<Status> {
        loop {
            match self.0.recv().await {
                Ok(status) => return Some(status),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
