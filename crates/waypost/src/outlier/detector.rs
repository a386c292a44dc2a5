//! Decides which endpoints of a service are ejected.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use waypost_core::{InstanceId, ServiceName};

use super::check_results::{CheckResults, CheckThresholds};
use super::ejection::{Ejection, EjectionStatus};
use super::events::{BalanceEvent, EjectionCause, EventSink};
use super::options::OutlierDetection;
use super::outcome::Outcome;
use super::window::{OutcomeCounts, OutcomeWindow};

/// Ejects and readmits the endpoints of one service.
#[derive(Debug)]
pub(crate) struct OutlierDetector {
    options: OutlierDetection,
    /// How many endpoints take new work, according to the registry.
    size: AtomicUsize,
    /// The number of entries in the table, so that readers need no lock while nothing is ejected.
    ejected: AtomicUsize,
    changed: watch::Sender<()>,
    table: Mutex<EjectionTable>,
    events: EventSink,
}

/// Which endpoints are ejected and why, and the results of active checks.
#[derive(Debug, Default)]
struct EjectionTable {
    ejected: HashMap<InstanceId, EjectionCause>,
    /// Endpoints that were not ejected because too many others were, and when, in milliseconds.
    overflowed: HashMap<InstanceId, u64>,
    checks: HashMap<InstanceId, CheckResults>,
}

/// One endpoint at one time, as the detector sees it.
#[derive(Clone, Copy)]
pub(crate) struct EndpointView<'a> {
    pub(crate) id: &'a InstanceId,
    pub(crate) outcomes: &'a OutcomeWindow,
    pub(crate) ejection: &'a Ejection,
    /// Milliseconds since the start of the endpoint's group.
    pub(crate) now: u64,
}

impl EndpointView<'_> {
    /// Whether the endpoint may be used at this time.
    pub(crate) fn status(&self) -> EjectionStatus {
        self.ejection.status(self.now)
    }
}

/// How long an endpoint is ejected.
#[derive(Clone, Copy, Debug)]
enum EjectionDuration {
    /// [`OutlierDetection::base_ejection`] times the number of consecutive ejections.
    Increasing,
    /// The pause that the endpoint requested.
    Fixed(Duration),
    /// Until its active checks pass.
    UntilChecksPass,
}

impl OutlierDetector {
    pub(crate) fn new(service: ServiceName, options: OutlierDetection) -> Self {
        Self {
            options,
            size: AtomicUsize::new(0),
            ejected: AtomicUsize::new(0),
            changed: watch::Sender::new(()),
            table: Mutex::default(),
            events: EventSink::new(service),
        }
    }

    /// Whether any endpoint is ejected or half open.
    pub(crate) fn has_ejected(&self) -> bool {
        self.ejected.load(Relaxed) > 0
    }

    /// How many endpoints are ejected or half open.
    pub(crate) fn ejected_count(&self) -> usize {
        self.ejected.load(Relaxed)
    }

    /// The ids of all endpoints that are ejected or half open.
    pub(crate) fn ejected_ids(&self) -> Vec<InstanceId> {
        if self.has_ejected() {
            self.table().ejected.keys().cloned().collect()
        } else {
            Vec::new()
        }
    }

    /// Why an endpoint is ejected.
    pub(crate) fn cause(&self, id: &InstanceId) -> Option<EjectionCause> {
        self.table().ejected.get(id).copied()
    }

    /// Notified when an endpoint is ejected or readmitted.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Where decisions are counted, logged and published.
    pub(crate) fn events(&self) -> &EventSink {
        &self.events
    }

    /// Sets how many endpoints take new work, which limits the number of ejections.
    pub(crate) fn set_size(&self, size: usize) {
        self.size.store(size, Relaxed);
    }

    /// Records a success whose exact time doesn't matter. Returns false, and records nothing, if it
    /// does: then [`record`](Self::record) is needed.
    #[inline]
    pub(crate) fn record_success(&self, outcomes: &OutcomeWindow, ejection: &Ejection) -> bool {
        if !self.options.enabled {
            return true;
        }
        let active = ejection.is_active();
        if active {
            outcomes.count_success(None);
        }
        active
    }

    /// Records how a request ended.
    #[inline]
    pub(crate) fn record(&self, endpoint: EndpointView<'_>, outcome: Outcome) {
        if !self.options.enabled {
            return;
        }
        if !endpoint.ejection.is_active() {
            return self.record_while_ejected(endpoint, outcome);
        }
        match outcome {
            Outcome::Succeeded => endpoint.outcomes.count_success(Some(endpoint.now)),
            Outcome::Failed => {
                let counts = endpoint.outcomes.count_failure(endpoint.now);
                if let Some(cause) = self.cause_to_eject(counts) {
                    self.eject(endpoint, cause, EjectionDuration::Increasing);
                }
            }
            Outcome::Rejected {
                retry_after: Some(pause),
            } => self.eject(
                endpoint,
                EjectionCause::Overloaded,
                EjectionDuration::Fixed(pause),
            ),
            Outcome::Rejected { retry_after: None } => {}
        }
    }

    #[cold]
    fn record_while_ejected(&self, endpoint: EndpointView<'_>, outcome: Outcome) {
        // Requests that were sent before the ejection, or in panic mode, don't affect the ejection.
        if endpoint.status() != EjectionStatus::HalfOpen {
            return;
        }
        match outcome {
            Outcome::Succeeded => self.readmit(endpoint),
            Outcome::Failed => self.eject(
                endpoint,
                EjectionCause::ProbeFailed,
                EjectionDuration::Increasing,
            ),
            Outcome::Rejected { retry_after } => {
                let duration =
                    retry_after.map_or(EjectionDuration::Increasing, EjectionDuration::Fixed);
                self.eject(endpoint, EjectionCause::Overloaded, duration);
            }
        }
    }

    /// Records that a request was dropped without an outcome after `age`. If it was the trial of an
    /// ejected endpoint and was held for long, the trial has failed; otherwise the next trial waits
    /// until this one would have timed out.
    #[cold]
    pub(crate) fn record_abandoned(
        &self,
        endpoint: EndpointView<'_>,
        age: Duration,
        is_trial: bool,
    ) {
        if !self.options.enabled || age < self.options.abandoned_after {
            return;
        }
        let consecutive = self.options.consecutive_failures.min(255);
        if endpoint.ejection.is_active() {
            let abandoned = endpoint.outcomes.count_abandoned(endpoint.now);
            if consecutive > 0 && abandoned >= consecutive {
                let cause = EjectionCause::ConsecutiveFailures;
                self.eject(endpoint, cause, EjectionDuration::Increasing);
            }
        } else if is_trial {
            self.record_while_ejected(endpoint, Outcome::Failed);
        }
    }

    fn cause_to_eject(&self, counts: OutcomeCounts) -> Option<EjectionCause> {
        let options = &self.options;
        if options.consecutive_failures > 0
            && counts.consecutive_failures >= options.consecutive_failures.min(255)
        {
            return Some(EjectionCause::ConsecutiveFailures);
        }
        let all = counts.succeeded + counts.failed;
        let rate = f64::from(counts.succeeded) / f64::from(all.max(1));
        (all >= options.minimum_requests.max(1) && rate < options.success_rate.min(0.999))
            .then_some(EjectionCause::SuccessRate)
    }

    #[cold]
    fn eject(&self, endpoint: EndpointView<'_>, cause: EjectionCause, duration: EjectionDuration) {
        let mut table = self.table();
        // Two threads may reach the same conclusion; the first one acts.
        match (endpoint.status(), duration) {
            (EjectionStatus::Ejected(Some(_)), EjectionDuration::UntilChecksPass) => {}
            (EjectionStatus::Ejected(_), _) => return,
            _ => {}
        }
        let id = endpoint.id;
        let others = table.ejected.len() - usize::from(table.ejected.contains_key(id));
        if others >= self.options.allowed(self.size.load(Relaxed)) {
            endpoint.outcomes.clear();
            endpoint.ejection.end();
            if table.ejected.remove(id).is_some() {
                self.ejections_changed(&table);
            }
            return self.report_overflow(&mut table, endpoint, cause);
        }
        let (pause, times) = match duration {
            EjectionDuration::UntilChecksPass => (None, endpoint.ejection.consecutive()),
            EjectionDuration::Fixed(pause) => (Some(pause), endpoint.ejection.consecutive()),
            EjectionDuration::Increasing => {
                let (pause, times) = self.next_ejection(endpoint);
                (Some(pause), times)
            }
        };
        let pause = pause.map(|pause| pause.min(self.options.max_ejection()));
        let until = pause.map(|pause| endpoint.now + pause.as_millis() as u64);
        endpoint.ejection.start(until);
        table.ejected.insert(id.clone(), cause);
        table.overflowed.remove(id);
        self.ejections_changed(&table);
        self.events.emit(BalanceEvent::Ejected {
            instance: id.clone(),
            cause,
            seconds: pause.map(|pause| pause.as_secs_f64()),
            times,
        });
    }

    /// Reports that an endpoint isn't ejected because too many others are. It is reported once, and
    /// again only after the endpoint has not been due for ejection for a while.
    fn report_overflow(
        &self,
        table: &mut EjectionTable,
        endpoint: EndpointView<'_>,
        cause: EjectionCause,
    ) {
        let instance = endpoint.id.clone();
        let last = table.overflowed.insert(instance.clone(), endpoint.now);
        let quiet = self.options.base_ejection.as_millis() as u64;
        if last.is_none_or(|last| endpoint.now.saturating_sub(last) > quiet) {
            self.events
                .emit(BalanceEvent::EjectionOverflow { instance, cause });
        }
    }

    /// How long the next ejection lasts, and the number of consecutive ejections including it.
    fn next_ejection(&self, endpoint: EndpointView<'_>) -> (Duration, u32) {
        let ejection = endpoint.ejection;
        let base = self.options.base_ejection;
        let before = if ejection.is_active() {
            // Each base time without an ejection cancels one earlier ejection.
            let healthy = endpoint.now.saturating_sub(ejection.readmitted_at());
            let cancelled = healthy / (base.as_millis() as u64).max(1);
            u64::from(ejection.consecutive()).saturating_sub(cancelled) as u32
        } else {
            ejection.consecutive()
        };
        let times = before.saturating_add(1);
        ejection.set_consecutive(times);
        let pause = base.saturating_mul(times).min(self.options.max_ejection());
        (pause.mul_f64(0.9 + 0.2 * fastrand::f64()), times)
    }

    /// Ends an ejection because the registry reports a change: an endpoint that became critical doesn't
    /// count towards the limit, and one that has recovered is most likely a new process.
    pub(crate) fn clear(&self, endpoint: EndpointView<'_>) {
        let mut table = self.table();
        if table.ejected.remove(endpoint.id).is_some() {
            endpoint.outcomes.clear();
            endpoint.ejection.end();
            self.ejections_changed(&table);
        }
    }

    /// Removes an endpoint that the registry no longer lists.
    pub(crate) fn remove(&self, id: &InstanceId) {
        let mut table = self.table();
        table.overflowed.remove(id);
        if table.ejected.remove(id).is_some() {
            self.set_ejected(table.ejected.len());
        }
    }

    fn readmit(&self, endpoint: EndpointView<'_>) {
        let mut table = self.table();
        if table.ejected.remove(endpoint.id).is_none() {
            return;
        }
        endpoint.ejection.set_readmitted(endpoint.now);
        endpoint.outcomes.clear();
        endpoint.ejection.end();
        self.ejections_changed(&table);
        let instance = endpoint.id.clone();
        self.events.emit(BalanceEvent::Returned { instance });
    }

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
        // If too many others were ejected, this one is considered again after the same number of
        // further failures.
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

    fn set_ejected(&self, count: usize) {
        self.ejected.store(count, Relaxed);
        self.events.set_ejected(count);
    }

    /// Publishes which endpoints are ejected now.
    fn ejections_changed(&self, table: &EjectionTable) {
        self.set_ejected(table.ejected.len());
        self.changed.send_replace(());
    }

    /// Each entry is valid on its own, so a poisoned lock can still be used.
    fn table(&self) -> MutexGuard<'_, EjectionTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
