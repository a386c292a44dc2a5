use std::sync::Arc;

use waypost_core::InstanceId;

use super::fleet::Term;
use super::tally::{Conduct, Status};
use super::{EjectionCause, Fleet};

/// How many checks in a row decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thresholds {
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

/// What this process's own checks of an endpoint say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    /// How many in a row came out as the latest did.
    pub(crate) in_a_row: u32,
    /// What was wrong at the latest, if something was.
    pub(crate) failure: Option<Arc<str>>,
}

impl Checks {
    fn note(&mut self, outcome: Result<(), Arc<str>>) {
        let failure = outcome.err();
        self.in_a_row = match self.failure.is_some() == failure.is_some() {
            true => self.in_a_row.saturating_add(1),
            false => 1,
        };
        self.failure = failure;
    }
}

impl Fleet {
    /// Notes how a check went; one after another for each endpoint.
    pub(crate) fn checked(
        &self,
        id: &InstanceId,
        conduct: &Conduct,
        outcome: Result<(), Arc<str>>,
        thresholds: Thresholds,
        now: u64,
    ) {
        let passed = outcome.is_ok();
        let in_a_row = {
            let mut bench = self.bench();
            match passed {
                true => bench.counters.checks_passed += 1,
                false => bench.counters.checks_failed += 1,
            }
            let checks = bench.checks.entry(id.clone()).or_default();
            checks.note(outcome);
            checks.in_a_row
        };
        let is_out = conduct.status(now) == Status::Ejected(None);
        // One that was spared is up for ejection again after as many failures more.
        if !passed && !is_out && in_a_row.is_multiple_of(thresholds.fall) {
            self.eject(
                id,
                conduct,
                EjectionCause::ActiveCheck,
                Term::UntilWell,
                now,
            );
        }
        if passed && is_out && in_a_row >= thresholds.rise {
            self.readmit(id, conduct, now);
        }
    }

    /// Checks of an endpoint have ended: what they said counts no more.
    pub(crate) fn forget_checks(&self, id: &InstanceId, conduct: &Conduct, now: u64) {
        self.bench().checks.remove(id);
        if conduct.status(now) == Status::Ejected(None) {
            self.readmit(id, conduct, now);
        }
    }

    /// What the checks of an endpoint said last, if it is checked.
    pub(crate) fn checks(&self, id: &InstanceId) -> Option<Checks> {
        self.bench().checks.get(id).cloned()
    }
}
