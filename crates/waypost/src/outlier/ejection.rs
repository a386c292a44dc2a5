//! Whether one endpoint is ejected, for how long, and which request may try it again.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// How long a trial request without an outcome prevents further trials.
const TRIAL_TIMEOUT_MILLIS: u64 = 5_000;

/// The end of an ejection that lasts until active checks pass.
const UNTIL_CHECKS_PASS: u64 = u64::MAX;

/// The ejection of one endpoint, if it is ejected. All times are milliseconds since the start of the
/// endpoint's group.
#[derive(Debug, Default)]
pub(crate) struct Ejection {
    /// When the ejection expires; 0 if there is none, [`UNTIL_CHECKS_PASS`] if checks decide.
    until: AtomicU64,
    /// When the next trial request may be sent.
    next_trial: AtomicU64,
    /// Number of consecutive ejections.
    consecutive: AtomicU32,
    /// When the endpoint was last readmitted, in tenths of a second.
    readmitted: AtomicU32,
}

/// Whether an endpoint may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EjectionStatus {
    /// Not ejected.
    Active,
    /// Ejected until this time; `None` means until its active checks pass.
    Ejected(Option<u64>),
    /// The ejection has expired; the outcome of one trial request decides.
    HalfOpen,
}

impl Ejection {
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.until.load(Relaxed) == 0
    }

    pub(crate) fn status(&self, now: u64) -> EjectionStatus {
        match self.until.load(Relaxed) {
            0 => EjectionStatus::Active,
            UNTIL_CHECKS_PASS => EjectionStatus::Ejected(None),
            until if until > now => EjectionStatus::Ejected(Some(until)),
            _ => EjectionStatus::HalfOpen,
        }
    }

    /// Number of consecutive ejections.
    pub(crate) fn consecutive(&self) -> u32 {
        self.consecutive.load(Relaxed)
    }

    pub(super) fn set_consecutive(&self, ejections: u32) {
        self.consecutive.store(ejections, Relaxed);
    }

    /// When the endpoint was last readmitted; 0 if it never was.
    pub(crate) fn readmitted_at(&self) -> u64 {
        u64::from(self.readmitted.load(Relaxed)) * 100
    }

    /// Ejects until this time, or until checks pass.
    pub(super) fn start(&self, until: Option<u64>) {
        self.next_trial.store(0, Relaxed);
        let until = until.map_or(UNTIL_CHECKS_PASS, |until| until.max(1));
        self.until.store(until, Relaxed);
    }

    /// Ends the ejection, if there is one.
    pub(super) fn end(&self) {
        self.until.store(0, Relaxed);
    }

    /// Records that the endpoint was readmitted at this time.
    pub(super) fn set_readmitted(&self, now: u64) {
        self.readmitted.store((now / 100) as u32, Relaxed);
    }

    /// Takes the right to send the one trial request.
    pub(crate) fn claim_trial(&self, now: u64) -> bool {
        let next = self.next_trial.load(Relaxed);
        self.status(now) == EjectionStatus::HalfOpen
            && next <= now
            && self
                .next_trial
                .compare_exchange(next, now + TRIAL_TIMEOUT_MILLIS, Relaxed, Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trial_request_is_sent_at_a_time() {
        let ejection = Ejection::default();
        ejection.start(Some(1_000));
        assert!(!ejection.claim_trial(999));
        assert!(ejection.claim_trial(1_000));
        assert!(!ejection.claim_trial(1_001));
        // A trial without an outcome doesn't block further trials forever.
        assert!(ejection.claim_trial(6_000));
        assert!(!ejection.claim_trial(6_001));
    }
}
