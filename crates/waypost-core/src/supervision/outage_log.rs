//! Counts the failing watches of one provider and logs the start and the end of an outage.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::status::ProviderStatus;
use crate::error::{ProviderError, ProviderErrorKind};

/// Whether a failure affects the whole provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureScope {
    /// The provider gives no usable answer: all services are affected.
    Outage,
    /// The provider refuses the request: only this request is affected.
    Refusal,
}

impl FailureScope {
    pub(super) fn of(error: &ProviderError) -> Self {
        use ProviderErrorKind::{Misconfigured, NotAuthorised, Rejected, Unsupported};
        match error.kind() {
            NotAuthorised | Rejected | Unsupported | Misconfigured => Self::Refusal,
            _ => Self::Outage,
        }
    }
}

/// Counts failing watches and logs changes of state: one line when the first watch begins to fail
/// and one when the last has recovered, not one per attempt and service.
#[derive(Debug)]
pub(super) struct OutageLog {
    state: Mutex<State>,
    enabled: bool,
}

#[derive(Debug)]
struct State {
    status: ProviderStatus,
    outage: FailingWatches,
    refusal: FailingWatches,
}

/// The watches that fail with one scope.
#[derive(Debug, Default)]
struct FailingWatches {
    now: usize,
    max: usize,
    since: Option<Instant>,
}

impl OutageLog {
    /// With `enabled` false, states are counted but nothing is logged.
    pub(super) fn new(provider: Arc<str>, enabled: bool) -> Self {
        Self {
            state: Mutex::new(State {
                status: ProviderStatus::new(provider),
                outage: FailingWatches::default(),
                refusal: FailingWatches::default(),
            }),
            enabled,
        }
    }

    pub(super) fn status(&self) -> ProviderStatus {
        self.state().status.clone()
    }

    pub(super) fn watch_started(&self) {
        self.state().status.watches += 1;
    }

    /// Records that a watch was dropped; `failing` is the scope of its failure at that time, if any.
    pub(super) fn watch_dropped(&self, failing: Option<FailureScope>) {
        let mut state = self.state();
        state.status.watches -= 1;
        // A dropped watch has not recovered, so nothing is logged.
        if let Some(scope) = failing {
            state.status.failing -= 1;
            let watches = state.failing(scope);
            watches.now -= 1;
            if watches.now == 0 {
                *watches = FailingWatches::default();
            }
        }
    }

    pub(super) fn reconnecting(&self) {
        self.state().status.reconnects += 1;
    }

    /// Records an answer of a watch; `before` is the scope of its failure until now, if any.
    pub(super) fn succeeded(&self, before: Option<FailureScope>) {
        let mut state = self.state();
        state.status.last_success = Some(Instant::now());
        state.status.answers += 1;
        if let Some(scope) = before {
            state.status.failing -= 1;
            let ended = state.recovered(scope);
            self.log_end(state, ended);
        }
    }

    /// Records a failure of a watch; `before` is the scope of its failure until now, if any.
    pub(super) fn failed(
        &self,
        subject: &str,
        before: Option<FailureScope>,
        error: &ProviderError,
    ) {
        let scope = FailureScope::of(error);
        let mut state = self.state();
        state.status.failures += 1;
        state.status.last_error = Some((Instant::now(), error.clone()));
        if before == Some(scope) {
            return;
        }
        let ended = match before {
            Some(before) => state.recovered(before),
            None => {
                state.status.failing += 1;
                None
            }
        };
        let watches = state.failing(scope);
        watches.now += 1;
        watches.max = watches.max.max(watches.now);
        let is_first = watches.since.is_none();
        watches.since.get_or_insert_with(Instant::now);
        let known = state.status.last_success.is_some();
        self.log_end(state, ended);
        if is_first && self.enabled {
            match scope {
                FailureScope::Outage if known => tracing::warn!(
                    %error, subject,
                    "provider unavailable, serving the last known instances"
                ),
                FailureScope::Outage => tracing::warn!(
                    %error, subject,
                    "provider unavailable, it has not answered since this program started"
                ),
                FailureScope::Refusal => {
                    tracing::warn!(%error, subject, "provider refused the request");
                }
            }
        }
    }

    fn log_end(&self, state: MutexGuard<'_, State>, ended: Option<FailingWatches>) {
        let provider = Arc::clone(&state.status.provider);
        // Writing a log line may block, so the lock is released first.
        drop(state);
        if let Some(FailingWatches { max, since, .. }) = ended
            && self.enabled
        {
            let lasted = since.map(|since| since.elapsed()).unwrap_or_default();
            tracing::info!(
                provider = &*provider,
                ?lasted,
                watches = max,
                "provider available again"
            );
        }
    }

    /// The counters are valid after any panic, so a poisoned lock can still be used.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn failing(&mut self, scope: FailureScope) -> &mut FailingWatches {
        match scope {
            FailureScope::Outage => &mut self.outage,
            FailureScope::Refusal => &mut self.refusal,
        }
    }

    /// Records that one watch no longer fails with this scope. Returns the counters if it was the last one.
    fn recovered(&mut self, scope: FailureScope) -> Option<FailingWatches> {
        let watches = self.failing(scope);
        watches.now -= 1;
        (watches.now == 0).then(|| std::mem::take(watches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with this many failing watches.
    fn failing(watches: usize) -> OutageLog {
        let log = OutageLog::new("fake".into(), true);
        for _ in 0..watches {
            log.watch_started();
            log.failed("a", None, &ProviderError::unreachable("fake", "no"));
        }
        log
    }

    #[test]
    fn an_outage_ends_with_the_recovery_of_the_last_watch() {
        let log = failing(3);
        let mut state = log.state();
        assert!(state.recovered(FailureScope::Outage).is_none());
        assert!(state.recovered(FailureScope::Outage).is_none());
        let ended = state.recovered(FailureScope::Outage).unwrap();
        assert_eq!(ended.max, 3);
        assert!(ended.since.is_some());
        assert!(state.outage.since.is_none());
    }

    #[test]
    fn an_outage_ends_with_the_drop_of_the_last_failing_watch() {
        let log = failing(2);
        log.watch_started();
        log.watch_dropped(None);
        log.watch_dropped(Some(FailureScope::Outage));
        assert_eq!(log.status().failing(), 1);
        assert!(log.state().outage.since.is_some());
        log.watch_dropped(Some(FailureScope::Outage));
        assert_eq!(log.status().failing(), 0);
        assert_eq!(log.status().watches(), 0);
        assert!(log.state().outage.since.is_none());
    }

    #[test]
    fn a_watch_that_is_refused_after_an_outage_is_counted_once() {
        let log = failing(2);
        let refused = ProviderError::new("fake", ProviderErrorKind::NotAuthorised, "403");
        log.failed("a", Some(FailureScope::Outage), &refused);
        log.failed("a", Some(FailureScope::Refusal), &refused);
        assert_eq!(log.status().failing(), 2);
        let state = log.state();
        assert_eq!((state.outage.now, state.refusal.now), (1, 1));
    }
}
