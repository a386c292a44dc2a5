//! Keeping the table up to date.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

use super::table::Table;
use super::{BalancerOptions, RoundRobin, Strategy};
use crate::conduct::{BalanceEvent, Fleet};
use crate::directory::Feed;
use crate::snapshot::Snapshot;

/// What a balancer and the task that keeps it up to date share.
pub(crate) struct Core {
    pub(crate) feed: Arc<Feed<Snapshot>>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) table: ArcSwap<Table>,
    options: BalancerOptions,
    /// Held while a table is made, so that an older one never replaces a newer one.
    strategy: Mutex<Arc<dyn Strategy>>,
}

impl Core {
    pub(crate) fn new(
        feed: Arc<Feed<Snapshot>>,
        strategy: Arc<dyn Strategy>,
        options: BalancerOptions,
    ) -> Arc<Self> {
        let snapshot = feed.load_full();
        let core = Arc::new(Self {
            fleet: Arc::clone(snapshot.fleet()),
            table: ArcSwap::from_pointee(Table::empty(snapshot, Arc::clone(&strategy))),
            feed,
            options,
            strategy: Mutex::new(strategy),
        });
        core.rebuild();
        core
    }

    pub(crate) fn options(&self) -> &BalancerOptions {
        &self.options
    }

    /// Takes over what the provider has said since, if anything.
    pub(crate) fn catch_up(&self) {
        if !Arc::ptr_eq(&self.table.load().snapshot, &self.feed.load()) {
            self.rebuild();
        }
    }

    pub(crate) fn set_strategy(&self, strategy: Arc<dyn Strategy>) {
        *self.strategy() = strategy;
        self.rebuild();
    }

    /// Makes a new table. One that can't be made is reported, and the last one stays.
    pub(crate) fn rebuild(&self) {
        let strategy = self.strategy();
        let snapshot = self.feed.load_full();
        let make = |strategy: &Arc<dyn Strategy>| {
            let (snapshot, strategy) = (Arc::clone(&snapshot), Arc::clone(strategy));
            let table = || Table::new(snapshot, strategy, &self.options, Instant::now());
            catch_unwind(AssertUnwindSafe(table))
        };
        let table = match make(&strategy) {
            Ok(table) => table,
            Err(panic) => {
                let message = message(&*panic);
                self.fleet.announce(BalanceEvent::PrepareFailed { message });
                if self.table.load().prepared.is_some() {
                    return;
                }
                // There is no last one. Any strategy is better than none.
                let plain: Arc<dyn Strategy> = Arc::new(RoundRobin::new());
                let Ok(table) = make(&plain) else { return };
                table
            }
        };
        self.fleet.panics(table.panic, table.healthy, table.known);
        self.table.store(Arc::new(table));
    }

    fn strategy(&self) -> MutexGuard<'_, Arc<dyn Strategy>> {
        self.strategy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn message(panic: &(dyn Any + Send)) -> Arc<str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).into(),
        (_, Some(text)) => text.as_str().into(),
        _ => "no message".into(),
    }
}

/// Runs until the balancer is gone.
pub(crate) async fn keep_up(
    core: Weak<Core>,
    mut news: watch::Receiver<()>,
    mut ejections: watch::Receiver<()>,
) {
    loop {
        let next = {
            let Some(core) = core.upgrade() else { return };
            core.table.load().next
        };
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        let rebuild = tokio::select! {
            heard = news.changed() => {
                if heard.is_err() { return }
                false
            }
            heard = ejections.changed() => {
                if heard.is_err() { return }
                true
            }
            () = due => true,
        };
        let Some(core) = core.upgrade() else { return };
        match rebuild {
            true => core.rebuild(),
            false => core.catch_up(),
        }
    }
}
