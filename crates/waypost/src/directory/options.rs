//! Options of a directory.

use std::path::PathBuf;
use std::time::Duration;

use super::shared_watch::Idle;
use crate::active_check::ActiveCheck;
use crate::outlier::OutlierDetection;

/// Options of a [`Directory`](crate::directory::Directory).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DirectoryOptions {
    /// How long a look-up waits for the first answer. 10 s by default.
    pub lookup_timeout: Duration,
    /// How long the watch of a service stays open without being used; it closes after one to two times
    /// this duration. 5 minutes by default.
    pub idle: Duration,
    /// The same for an unknown service, so that look-ups of arbitrary names don't accumulate. 30 s by
    /// default.
    pub idle_unknown: Duration,
    /// The maximum age of a stale answer; an older one is an error ([`Error::Stale`](crate::Error::Stale)).
    /// No limit by default, because old addresses are usually still right.
    pub max_stale: Option<Duration>,
    /// How long an answer without usable instances must last after an outage before it is accepted, if there
    /// were usable instances before: a registry that was wiped has none until its services have registered
    /// again and their checks have run. 10 s by default, twice the heartbeat interval. If the registry was
    /// restored from an older state, such as a snapshot of Consul, the time is at least 70 s, unless this is
    /// zero.
    pub hold_empty_after_outage: Duration,
    /// The same without an outage. Zero by default: an empty answer then means that the last instance
    /// has left.
    pub hold_empty: Duration,
    /// A file that stores the snapshots, for a program that starts while the registry is down. None by default.
    pub snapshot_file: Option<PathBuf>,
    /// When endpoints are ejected for failed requests.
    pub outlier_detection: OutlierDetection,
    /// Active checks by this process. None by default.
    pub active_check: Option<ActiveCheck>,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            lookup_timeout: Duration::from_secs(10),
            idle: Duration::from_secs(300),
            idle_unknown: Duration::from_secs(30),
            max_stale: None,
            hold_empty_after_outage: Duration::from_secs(10),
            hold_empty: Duration::ZERO,
            snapshot_file: None,
            outlier_detection: OutlierDetection::default(),
            active_check: None,
        }
    }
}

impl DirectoryOptions {
    pub(super) fn idle(&self) -> Idle {
        Idle {
            known: self.idle,
            negative: self.idle_unknown.min(self.idle),
        }
    }
}
