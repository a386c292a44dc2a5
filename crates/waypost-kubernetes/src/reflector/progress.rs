//! The state that a reflector shares with the liveness monitor of its namespace.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The progress of one reflector, and an instruction to it.
#[derive(Debug, Default)]
pub(crate) struct WatchProgress {
    resource_version: AtomicU64,
    relist_after_silence: AtomicBool,
}

impl WatchProgress {
    /// The latest resource version that was listed or watched; 0 if there is none yet, or if it is
    /// not a number.
    pub(crate) fn resource_version(&self) -> u64 {
        self.resource_version.load(Ordering::Relaxed)
    }

    pub(super) fn set_resource_version(&self, version: &str) {
        let version = parse_resource_version(version);
        self.resource_version.store(version, Ordering::Relaxed);
    }

    /// Whether the reflector must list again after a watch without any event, because no liveness
    /// probe can detect a rollback.
    pub(super) fn relists_after_silence(&self) -> bool {
        self.relist_after_silence.load(Ordering::Relaxed)
    }

    pub(crate) fn set_relist_after_silence(&self, relist: bool) {
        self.relist_after_silence.store(relist, Ordering::Relaxed);
    }
}

/// Reads a resource version as a number; 0 if it is not one. Clients must treat resource versions as
/// opaque in general, but those of Kubernetes are numbers that increase (KEP-5504).
pub(crate) fn parse_resource_version(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_version_is_a_number_or_unknown() {
        let progress = WatchProgress::default();
        assert_eq!(progress.resource_version(), 0);
        for (version, expected) in [("17", 17), ("opaque", 0), ("", 0), ("18", 18)] {
            progress.set_resource_version(version);
            assert_eq!(progress.resource_version(), expected, "{version}");
        }
    }

    #[test]
    fn a_silent_watch_is_trusted_unless_no_probe_can_detect_a_rollback() {
        let progress = WatchProgress::default();
        assert!(!progress.relists_after_silence());
        for relist in [true, false] {
            progress.set_relist_after_silence(relist);
            assert_eq!(progress.relists_after_silence(), relist);
        }
    }
}
