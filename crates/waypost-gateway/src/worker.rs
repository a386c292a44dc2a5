//! The state of a worker: its connections to instances, its time limits, and what it has counted.
//!
//! A worker is a thread with its own runtime and its share of the clients' connections.
//! Workers share data that rarely changes (routes, configuration), but nothing that requests write to, so
//! a core never waits for another one.

use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::access_log::LogBuffer;
use crate::config::Config;
use crate::deadlines::Deadlines;
use crate::request_ids::RequestIds;
use crate::retry_budget::RetryBudget;
use crate::stream_info::StreamInfo;
use crate::traffic::WorkerCounts;
use crate::upstream::Upstream;

/// The state of one worker.
pub(crate) struct Worker {
    upstream: Upstream,
    deadlines: Deadlines,
    counts: Arc<WorkerCounts>,
    log: LogBuffer,
    request_ids: RequestIds,
    /// By the index of the service.
    budgets: Mutex<Vec<RetryBudget>>,
    budget: RetryBudget,
    /// The number of idle connections that still have their buffers.
    idle: AtomicUsize,
    phase: AtomicU8,
}

/// Whether a connection counts among those that are idle and still have their buffers.
pub(crate) struct IdleCount<'a> {
    idle: &'a AtomicUsize,
    is_counted: bool,
}

/// The number of idle connections of a worker that keep their buffers for some time. Further ones release
/// them as soon as the worker has nothing else to do, unless that was too early the last time. Without the
/// limit, the buffers of many connections that send one request each would spread in memory, and the
/// allocator can't return pages that are partly in use.
const MAX_IDLE: usize = 16;

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const CLOSING: u8 = 2;

impl Worker {
    /// `workers` is the number of all workers, among which limits are divided.
    pub(crate) fn new(
        config: &Config,
        workers: usize,
        upstream: Upstream,
        counts: Arc<WorkerCounts>,
    ) -> Self {
        Self {
            upstream,
            deadlines: Deadlines::new(),
            counts,
            log: LogBuffer::new(config.access_log.clone()),
            request_ids: RequestIds::new(),
            budgets: Mutex::default(),
            budget: RetryBudget::new(config.retry_ratio, workers),
            idle: AtomicUsize::new(0),
            phase: AtomicU8::new(SERVING),
        }
    }

    /// Enforces time limits, closes idle connections and passes on the access log. Never returns.
    pub(crate) async fn run(&self) {
        let tick = || {
            self.log.flush();
            self.upstream.close_idle(self.deadlines.now())
        };
        self.deadlines.run(tick).await;
    }

    /// Passes on the rest of the access log.
    pub(crate) fn flush_log(&self) {
        self.log.flush();
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    pub(crate) fn request_ids(&self) -> &RequestIds {
        &self.request_ids
    }

    /// Counts a connection while it is idle.
    pub(crate) fn idle_count(&self) -> IdleCount<'_> {
        IdleCount {
            idle: &self.idle,
            is_counted: false,
        }
    }

    /// Records a request that has ended. `peer` is the address of the client.
    pub(crate) fn record(&self, info: &StreamInfo, peer: &str) {
        self.counts.record(info);
        self.log.write(info, peer);
    }

    /// Counts a request to a service in its retry budget.
    pub(crate) fn deposit_retry(&self, service: usize) {
        self.with_budget(service, RetryBudget::deposit);
    }

    /// Takes one retry from the budget of a service. Returns false if none is left.
    pub(crate) fn withdraw_retry(&self, service: usize) -> bool {
        let now = self.deadlines.now();
        self.with_budget(service, |budget| budget.withdraw(now))
    }

    fn with_budget<T>(&self, service: usize, change: impl FnOnce(&mut RetryBudget) -> T) -> T {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.len() <= service {
            budgets.resize(service + 1, self.budget);
        }
        match budgets.get_mut(service) {
            Some(budget) => change(budget),
            None => change(&mut self.budget.clone()),
        }
    }

    /// Makes connections close after their current requests.
    pub(crate) fn drain(&self) {
        self.phase.fetch_max(DRAINING, Ordering::SeqCst);
        self.deadlines.wake_all();
    }

    /// Closes all connections at once.
    pub(crate) fn close(&self) {
        self.phase.fetch_max(CLOSING, Ordering::SeqCst);
        self.deadlines.wake_all();
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= DRAINING
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= CLOSING
    }
}

impl IdleCount<'_> {
    /// Returns whether that changes anything.
    pub(crate) fn set(&mut self, is_idle: bool) -> bool {
        if is_idle == self.is_counted {
            return false;
        }
        self.is_counted = is_idle;
        if is_idle {
            self.idle.fetch_add(1, Ordering::Relaxed);
        } else {
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
        true
    }

    /// Whether more idle connections have their buffers than may keep them.
    pub(crate) fn is_above_limit(&self) -> bool {
        self.idle.load(Ordering::Relaxed) > MAX_IDLE
    }
}

impl Drop for IdleCount<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}
