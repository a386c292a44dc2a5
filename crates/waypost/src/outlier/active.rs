//! Results of this process's own checks of endpoints, and what they decide.

use std::sync::Arc;

use super::detector::{EjectionDuration, EndpointView, OutlierDetector};
use super::ejection::EjectionStatus;
use super::events::EjectionCause;

/// How many equal results in a row decide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckThresholds {
    /// Passing checks that readmit.
    pub(crate) rise: u32,
    /// Failing checks that eject.
    pub(crate) fall: u32,
}

/// The latest results of active checks of one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckResults {
    /// How many in a row had the latest result.
    pub(crate) consecutive: u32,
    /// Why the latest check failed; `None` if it passed.
    pub(crate) failure: Option<Arc<str>>,
}

impl CheckResults {
    fn add(&mut self, result: Result<(), Arc<str>>) {
        let failure = result.err();
        let is_same = self.failure.is_some() == failure.is_some();
        self.consecutive = if is_same {
            self.consecutive.saturating_add(1)
        } else {
            1
        };
        self.failure = failure;
    }
}

impl OutlierDetector {
    /// Records the result of an active check. Checks of one endpoint are recorded one at a time.
    pub(crate) fn record_check(
        &self,
        endpoint: EndpointView<'_>,
        result: Result<(), Arc<str>>,
        thresholds: CheckThresholds,
    ) {
        let passed = result.is_ok();
        self.events().count_check(passed);
        let consecutive = {
            let mut table = self.table();
            let results = table.checks.entry(endpoint.id.clone()).or_default();
            results.add(result);
            results.consecutive
        };
        let is_out = endpoint.status() == EjectionStatus::Ejected(None);
        // If too many others were ejected, this one is considered again after as many failures more.
        if !passed && !is_out && consecutive.is_multiple_of(thresholds.fall) {
            let duration = EjectionDuration::UntilChecksPass;
            self.eject(endpoint, EjectionCause::ActiveCheck, duration);
        }
        if passed && is_out && consecutive >= thresholds.rise {
            self.readmit(endpoint);
        }
    }

    /// Discards the results of an endpoint that is no longer checked.
    pub(crate) fn discard_checks(&self, endpoint: EndpointView<'_>) {
        self.table().checks.remove(endpoint.id);
        if endpoint.status() == EjectionStatus::Ejected(None) {
            self.readmit(endpoint);
        }
    }

    /// The latest results of an endpoint, if it is checked.
    pub(crate) fn check_results(&self, endpoint: EndpointView<'_>) -> Option<CheckResults> {
        self.table().checks.get(endpoint.id).cloned()
    }
}
