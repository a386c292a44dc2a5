//! Keeps the prepared picker of a balancer up to date.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::picker::PreparedPicker;
use super::round_robin::RoundRobin;
use super::{BalancerOptions, Strategy, panic_message};
use crate::directory::SharedWatch;
use crate::endpoint::EndpointGroup;
use crate::outlier::BalanceEvent;
use crate::snapshot::Snapshot;

/// The state that a balancer shares with its refresh task.
pub(crate) struct BalancerState {
    pub(crate) watch: Arc<SharedWatch<Snapshot>>,
    pub(crate) group: Arc<EndpointGroup>,
    pub(crate) picker: ArcSwap<PreparedPicker>,
    options: BalancerOptions,
    /// Locked while a picker is prepared, so that an older one never replaces a newer one.
    strategy: Mutex<Arc<dyn Strategy>>,
}

impl BalancerState {
    pub(crate) fn new(
        watch: Arc<SharedWatch<Snapshot>>,
        strategy: Arc<dyn Strategy>,
        options: BalancerOptions,
    ) -> Arc<Self> {
        let snapshot = watch.load_full();
        let state = Arc::new(Self {
            group: Arc::clone(snapshot.group()),
            picker: ArcSwap::from_pointee(PreparedPicker::empty(snapshot, Arc::clone(&strategy))),
            watch,
            options,
            strategy: Mutex::new(strategy),
        });
        state.prepare();
        state
    }

    pub(crate) fn options(&self) -> &BalancerOptions {
        &self.options
    }

    /// Prepares a picker if the snapshot has changed since the last one.
    pub(crate) fn refresh(&self) {
        if !Arc::ptr_eq(self.picker.load().snapshot(), &self.watch.load()) {
            self.prepare();
        }
    }

    pub(crate) fn set_strategy(&self, strategy: Arc<dyn Strategy>) {
        *self.strategy() = strategy;
        self.prepare();
    }

    /// Prepares a picker and publishes it. If the strategy panics, that is reported and the previous
    /// picker stays in use.
    fn prepare(&self) {
        let strategy = self.strategy();
        let snapshot = self.watch.load_full();
        let prepare = |strategy: &Arc<dyn Strategy>| {
            let (snapshot, strategy) = (Arc::clone(&snapshot), Arc::clone(strategy));
            let now = Instant::now();
            let prepare = || PreparedPicker::new(snapshot, strategy, &self.options, now);
            catch_unwind(AssertUnwindSafe(prepare))
        };
        let events = self.group.detector.events();
        let picker = match prepare(&strategy) {
            Ok(picker) => picker,
            Err(panic) => {
                let message = panic_message(&*panic);
                events.emit(BalanceEvent::PrepareFailed { message });
                if self.picker.load().has_candidates() {
                    return;
                }
                // There is no previous picker, so round robin is used.
                let fallback: Arc<dyn Strategy> = Arc::new(RoundRobin::new());
                let Ok(picker) = prepare(&fallback) else {
                    return;
                };
                picker
            }
        };
        if let Some(message) = &picker.weights_panicked {
            let message = Arc::clone(message);
            events.emit(BalanceEvent::PrepareFailed { message });
        }
        // Panic mode is reported for the service, and not for each selection of its instances.
        if self.options.selector.is_none() {
            events.set_panicking(picker.panic, picker.healthy, picker.known);
        }
        self.picker.store(Arc::new(picker));
    }

    fn strategy(&self) -> MutexGuard<'_, Arc<dyn Strategy>> {
        self.strategy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prepares a picker whenever the snapshot or the ejections change, and when slow start advances or
/// an ejection expires. Ends when the balancer is dropped.
pub(crate) async fn keep_fresh(
    state: Weak<BalancerState>,
    mut snapshots: watch::Receiver<()>,
    mut ejections: watch::Receiver<()>,
) {
    loop {
        let due = {
            let Some(state) = state.upgrade() else { return };
            state.picker.load().refresh_at
        };
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let weights_changed = tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() { return }
                false
            }
            changed = ejections.changed() => {
                if changed.is_err() { return }
                true
            }
            () = timer => true,
        };
        let Some(state) = state.upgrade() else { return };
        if weights_changed {
            state.prepare();
        } else {
            state.refresh();
        }
    }
}
