//! A worker: one thread with its own runtime, its share of the clients' connections, and its own
//! connections to instances.
//!
//! Workers share data that rarely changes (routes, configuration), but nothing that requests write to, so
//! a core never waits for another one.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::LogBuffer;
use crate::client_stream::ClientLimits;
use crate::connection;
use crate::deadlines::Deadlines;
use crate::exchange::Exchange;
use crate::listener::Accepted;
use crate::retry_budget::RetryBudget;
use crate::server::Server;
use crate::traffic::WorkerCounts;
use crate::upstream::Upstream;

/// The state of one worker.
pub(crate) struct Worker {
    server: Arc<Server>,
    upstream: Upstream,
    deadlines: Deadlines,
    counts: Arc<WorkerCounts>,
    log: LogBuffer,
    /// By the index of the service.
    budgets: Mutex<Vec<RetryBudget>>,
    budget: RetryBudget,
    phase: AtomicU8,
}

const SERVING: u8 = 0;
const DRAINING: u8 = 1;
const CLOSING: u8 = 2;

impl Worker {
    /// `workers` is the number of all workers, among which limits are divided.
    pub(crate) fn new(server: Arc<Server>, workers: usize) -> Self {
        let config = server.config();
        Self {
            upstream: Upstream::new(config, Arc::clone(server.client_tls())),
            deadlines: Deadlines::new(),
            counts: server.traffic().add_worker(),
            log: LogBuffer::new(config.access_log.clone()),
            budgets: Mutex::default(),
            budget: RetryBudget::new(config.retry_ratio, workers),
            phase: AtomicU8::new(SERVING),
            server,
        }
    }

    /// Serves the connections that arrive until `stop` is cancelled.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut accepted: mpsc::UnboundedReceiver<Accepted>,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) {
        let accept = async {
            while let Some(Accepted {
                stream,
                peer,
                permit,
            }) = accepted.recv().await
            {
                let worker = Arc::clone(&self);
                tracker.spawn(async move {
                    connection::serve(worker, stream, peer).await;
                    drop(permit);
                });
            }
            std::future::pending::<()>().await;
        };
        let tick = || {
            self.log.flush();
            self.upstream.close_idle(self.deadlines.now())
        };
        tokio::select! {
            () = accept => {}
            () = self.deadlines.run(tick) => {}
            () = stop.cancelled() => {}
        }
        self.log.flush();
    }

    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    pub(crate) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// The time limits for clients.
    pub(crate) fn client_limits(&self) -> ClientLimits {
        let config = self.server.config();
        ClientLimits {
            head: config.head_timeout,
            idle: config.keep_alive_timeout,
            write: config.write_timeout,
        }
    }

    /// Records a request that has ended.
    pub(crate) fn record(&self, exchange: &Exchange, duration: Duration) {
        self.counts.record(exchange, duration);
        self.log.write(exchange, duration);
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
