use std::path::PathBuf;
use std::time::Duration;

use super::feed::Idle;
use crate::active_check::ActiveCheck;
use crate::conduct::OutlierDetection;

/// How a [`Directory`](crate::Directory) behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DirectoryOptions {
    /// How long a look-up waits for a first answer. 10 s unless set.
    pub lookup_timeout: Duration,
    /// After how long a name that nobody asks for is dropped, at the latest twice that. 5 minutes
    /// unless set.
    pub idle: Duration,
    /// The same for a name of which nothing is known, so that names made up by a caller don't pile
    /// up. 30 s unless set.
    pub idle_unknown: Duration,
    /// After how long a stale answer is an error ([`Error::Stale`](crate::Error::Stale)) instead
    /// of an answer. Never unless set: what was right a while ago is mostly right still.
    pub max_stale: Option<Duration>,
    /// How long an answer of "no instances" that ends an outage must hold before it is believed,
    /// where there were instances before: a registry that was wiped says so until its services
    /// have registered again. 10 s unless set, twice the time between two heartbeats.
    pub hold_empty_after_outage: Duration,
    /// The same where there was no outage. Zero unless set: then the last instance has left.
    pub hold_empty: Duration,
    /// A file that keeps what is known, for a start while the registry is down. None unless set.
    pub snapshot_file: Option<PathBuf>,
    /// When endpoints are ejected for their conduct.
    pub outlier_detection: OutlierDetection,
    /// How this process checks endpoints itself. None unless set.
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
