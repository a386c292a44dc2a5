//! Runs the active checks of a service.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use waypost_core::InstanceId;

use super::ActiveCheck;
use crate::endpoint::Endpoint;
use crate::snapshot::Snapshot;

/// The maximum number of concurrent checks of a service, so that ten thousand unresponsive instances
/// don't occupy ten thousand sockets.
const MAX_CONCURRENT: usize = 64;

/// Returns the current snapshot; `None` when the service is no longer watched.
pub(crate) trait Current: Fn() -> Option<Arc<Snapshot>> + Clone + Send + 'static {}

impl<F: Fn() -> Option<Arc<Snapshot>> + Clone + Send + 'static> Current for F {}

/// Checks each endpoint that takes new work, until it is removed. `changes` is notified when endpoints
/// are added or removed.
pub(crate) async fn run_checks(
    check: ActiveCheck,
    current: impl Current,
    mut changes: watch::Receiver<()>,
) {
    let check = Arc::new((check, Semaphore::new(MAX_CONCURRENT)));
    // The loops end when this set is dropped.
    let mut loops = JoinSet::new();
    let mut running: HashMap<InstanceId, AbortHandle> = HashMap::new();
    loop {
        let Some(snapshot) = current() else { return };
        let ready = snapshot.ready().iter();
        let ids: HashSet<&InstanceId> = ready.map(|endpoint| endpoint.instance().id()).collect();
        running.retain(|id, running| {
            let stays = ids.contains(id);
            if !stays {
                running.abort();
            }
            stays
        });
        for endpoint in snapshot.ready() {
            let id = endpoint.instance().id();
            if !running.contains_key(id) {
                let checked = CheckedEndpoint(Arc::clone(endpoint));
                let task = check_endpoint(Arc::clone(&check), checked, current.clone());
                running.insert(id.clone(), loops.spawn(task));
            }
        }
        drop(snapshot);
        while loops.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn check_endpoint(
    check: Arc<(ActiveCheck, Semaphore)>,
    checked: CheckedEndpoint,
    current: impl Current,
) {
    let (check, concurrency) = &*check;
    // Clients that start together don't check at the same time.
    let mut pause = check.interval.mul_f64(fastrand::f64());
    loop {
        sleep(pause).await;
        pause = check.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let Some(endpoint) = current().and_then(|snapshot| checked.in_snapshot(&snapshot)) else {
            return;
        };
        if check.port_of(endpoint.instance()).is_none() {
            checked.discard_results();
            continue;
        }
        let Ok(permit) = concurrency.acquire().await else {
            return;
        };
        let started = Instant::now();
        let result = check.check(endpoint.instance()).await;
        drop(permit);
        let detector = &endpoint.state().group.detector;
        let view = endpoint.view(Instant::now());
        detector.record_check(view, result.map_err(Arc::from), check.thresholds);
        pause = pause
            .saturating_sub(started.elapsed())
            .max(Duration::from_millis(1));
    }
}

/// An endpoint that is checked. When its checks end, their results are discarded.
struct CheckedEndpoint(Arc<Endpoint>);

impl CheckedEndpoint {
    /// The same endpoint in a later snapshot.
    fn in_snapshot(&self, snapshot: &Snapshot) -> Option<Arc<Endpoint>> {
        snapshot.endpoint(self.0.instance().id()).cloned()
    }

    fn discard_results(&self) {
        let detector = &self.0.state().group.detector;
        detector.discard_checks(self.0.view(Instant::now()));
    }
}

impl Drop for CheckedEndpoint {
    fn drop(&mut self) {
        self.discard_results();
    }
}
