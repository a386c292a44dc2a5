use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep};
use waypost_core::InstanceId;

use super::ActiveCheck;
use crate::snapshot::{Endpoint, Snapshot};

/// How many checks of a service are under way at a time, so that ten thousand instances that don't
/// answer cost no ten thousand sockets.
const AT_ONCE: usize = 64;

/// Gives what is known now, and nothing once the service isn't followed any more.
pub(crate) trait Current: Fn() -> Option<Arc<Snapshot>> + Clone + Send + 'static {}

impl<F: Fn() -> Option<Arc<Snapshot>> + Clone + Send + 'static> Current for F {}

/// Checks each endpoint that takes new work, from when it comes until it leaves; `news` tells of
/// both.
pub(crate) async fn keep_checking(
    check: ActiveCheck,
    current: impl Current,
    mut news: watch::Receiver<()>,
) {
    let check = Arc::new((check, Semaphore::new(AT_ONCE)));
    // Dropped with this task, and its loops with it.
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
                let subject = Subject(Arc::clone(endpoint));
                let one = check_one(Arc::clone(&check), subject, current.clone());
                running.insert(id.clone(), loops.spawn(one));
            }
        }
        drop(snapshot);
        while loops.try_join_next().is_some() {}
        if news.changed().await.is_err() {
            return;
        }
    }
}

async fn check_one(check: Arc<(ActiveCheck, Semaphore)>, subject: Subject, current: impl Current) {
    let (check, at_once) = &*check;
    // Clients that start together don't check together.
    let mut pause = check.interval.mul_f64(fastrand::f64());
    loop {
        sleep(pause).await;
        pause = check.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
        let Some(endpoint) = current().and_then(|snapshot| subject.now(&snapshot)) else {
            return;
        };
        if check.port_of(endpoint.instance()).is_none() {
            subject.forget();
            continue;
        }
        let Ok(permit) = at_once.acquire().await else {
            return;
        };
        let begun = Instant::now();
        let outcome = check.check(endpoint.instance()).await;
        drop(permit);
        let state = endpoint.state();
        let now = state.fleet.millis(Instant::now());
        let outcome = outcome.map_err(Arc::from);
        (state.fleet).checked(
            endpoint.instance().id(),
            &state.conduct,
            outcome,
            check.thresholds,
            now,
        );
        pause = pause
            .saturating_sub(begun.elapsed())
            .max(Duration::from_millis(1));
    }
}

/// An endpoint that is checked. When its checks end, what they said of it is void.
struct Subject(Arc<Endpoint>);

impl Subject {
    /// The same endpoint as the registry has it now.
    fn now(&self, snapshot: &Snapshot) -> Option<Arc<Endpoint>> {
        let (all, id) = (snapshot.endpoints(), self.0.instance().id());
        let place = all.binary_search_by(|endpoint| endpoint.instance().id().cmp(id));
        place.ok().map(|place| Arc::clone(&all[place]))
    }

    fn forget(&self) {
        let state = self.0.state();
        let now = state.fleet.millis(Instant::now());
        (state.fleet).forget_checks(self.0.instance().id(), &state.conduct, now);
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.forget();
    }
}
