//! Traffic figures: requests, failures and latencies per service, second by second.
//!
//! Each worker has its own counts. Once a second they are collected into a history of 15 minutes and
//! into totals since the start.

mod counts;
mod history;
mod latency;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::broadcast;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(crate) use counts::{InstanceCounts, ServiceCounts, WorkerCounts};
#[cfg(test)]
pub(crate) use history::Bucket;
pub(crate) use history::{History, SECONDS, Second};

/// The number of seconds by which a subscriber may fall behind.
const BACKLOG: usize = 16;

/// The figures of all workers.
pub(crate) struct Traffic {
    workers: Mutex<Vec<Weak<WorkerCounts>>>,
    collected: Mutex<Collected>,
    seconds: broadcast::Sender<Arc<Second>>,
    ended: CancellationToken,
}

#[derive(Default)]
struct Collected {
    history: History,
    /// Since the start, by the name of the service.
    totals: HashMap<Arc<str>, ServiceCounts>,
}

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            workers: Mutex::default(),
            collected: Mutex::default(),
            seconds: broadcast::Sender::new(BACKLOG),
            ended: CancellationToken::new(),
        }
    }

    /// Ends all streams, so that open ones don't delay the shutdown of the gateway.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Completes after [`end`](Self::end).
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Adds the counts of a worker. They are removed when the worker drops them.
    pub(crate) fn add_worker(&self) -> Arc<WorkerCounts> {
        let counts = Arc::new(WorkerCounts::default());
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(Arc::downgrade(&counts));
        counts
    }

    /// Collects the counts once a second. Never returns.
    pub(crate) async fn collect_every_second(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let second = Arc::new(self.collect(unix_seconds()));
            // Fails if there are no subscribers.
            let _ = self.seconds.send(second);
        }
    }

    /// The history, and a subscription to the seconds after it.
    pub(crate) fn subscribe(&self) -> (History, broadcast::Receiver<Arc<Second>>) {
        let collected = self.collected();
        (collected.history.clone(), self.seconds.subscribe())
    }

    /// The counts since the start, including those not yet in the history.
    pub(crate) fn totals(&self) -> HashMap<Arc<str>, ServiceCounts> {
        let mut totals = self.collected().totals.clone();
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in workers.iter().filter_map(Weak::upgrade) {
            worker.peek(|name, counts| add(&mut totals, name, counts));
        }
        totals
    }

    fn collect(&self, unix_second: u64) -> Second {
        let mut services = HashMap::new();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| {
            let Some(worker) = worker.upgrade() else {
                return false;
            };
            worker.take(|name, counts| add(&mut services, name, counts));
            true
        });
        drop(workers);
        let second = Second {
            unix_second,
            services,
        };
        let mut collected = self.collected();
        for (name, counts) in &second.services {
            add(&mut collected.totals, name, counts);
        }
        collected.history.push(&second);
        second
    }

    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(to: &mut HashMap<Arc<str>, ServiceCounts>, name: &Arc<str>, counts: &ServiceCounts) {
    to.entry(Arc::clone(name)).or_default().add(counts);
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
