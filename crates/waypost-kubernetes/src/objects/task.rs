//! The task of an object watch: it waits for events, applies them and publishes the result.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::state::KindState;
use super::{ObjectKind, Objects};
use crate::client::ApiClient;
use crate::error::RequestError;
use crate::liveness::{LivenessEvent, LivenessMonitor, ProbeTarget};
use crate::reflector::{Reflector, ReflectorEvent, WatchProgress};

/// The minimum time between two publications, so that a burst of changes is published once.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(20);

type Parse<T> = Box<dyn Fn(&ObjectKind, Value) -> Option<T> + Send>;

pub(super) struct Task<T> {
    provider: Arc<str>,
    reflectors: Vec<Reflector<Value>>,
    states: Vec<KindState<T>>,
    liveness: LivenessMonitor,
    /// The error of the latest probe, while the server does not respond.
    unresponsive: Option<RequestError>,
    parse: Parse<T>,
    latest: watch::Sender<Vec<Objects<T>>>,
}

impl<T: Send + Sync + 'static> Task<T> {
    pub(super) fn new(
        client: &Arc<ApiClient>,
        kinds: &[ObjectKind],
        parse: impl Fn(&ObjectKind, Value) -> Option<T> + Send + 'static,
    ) -> (Self, watch::Receiver<Vec<Objects<T>>>) {
        let (mut reflectors, mut targets) = (Vec::new(), Vec::new());
        for kind in kinds {
            let progress = Arc::new(WatchProgress::default());
            reflectors.push(Reflector::new(client, kind.path(), &progress));
            targets.push(ProbeTarget {
                path: kind.path(),
                progress,
            });
        }
        let (latest, receiver) = watch::channel(Vec::new());
        let task = Self {
            provider: Arc::clone(client.describe()),
            reflectors,
            states: kinds.iter().map(|kind| KindState::new(*kind)).collect(),
            liveness: LivenessMonitor::new(Arc::clone(client), targets),
            unresponsive: None,
            parse: Box::new(parse),
            latest,
        };
        (task, receiver)
    }

    pub(super) async fn run(mut self) {
        let mut next_publish = Instant::now();
        let mut has_changed = false;
        loop {
            let probes = self.states.iter().any(KindState::needs_liveness_probes);
            let hold_until = self.states.iter().filter_map(KindState::hold_until).min();
            tokio::select! {
                (index, event) = next_event(&mut self.reflectors) => self.apply(index, event),
                event = self.liveness.next(), if probes => self.apply_liveness(event),
                () = sleep_until(hold_until.unwrap_or(next_publish)), if hold_until.is_some() => {
                    let now = Instant::now();
                    self.states.iter_mut().for_each(|state| state.end_hold(now));
                }
                () = sleep_until(next_publish), if has_changed => {
                    self.publish();
                    next_publish = Instant::now() + PUBLISH_INTERVAL;
                    has_changed = false;
                    continue;
                }
            }
            has_changed = true;
        }
    }

    fn apply(&mut self, index: usize, event: ReflectorEvent<Value>) {
        let Some(state) = self.states.get_mut(index) else {
            return;
        };
        if state.apply(event, Instant::now(), &self.parse) {
            self.liveness.probe_now();
        }
    }

    fn apply_liveness(&mut self, event: LivenessEvent) {
        let now = Instant::now();
        match event {
            LivenessEvent::Unresponsive(error) => self.unresponsive = Some(error),
            LivenessEvent::Alive => self.states.iter_mut().for_each(|state| state.confirm(now)),
            LivenessEvent::Recovered => {
                self.unresponsive = None;
                self.reflectors.iter().for_each(Reflector::reopen_watch);
            }
            LivenessEvent::RolledBack(error) => {
                self.unresponsive = None;
                self.states.iter_mut().for_each(|state| state.fail(&error));
                self.reflectors.iter().for_each(Reflector::relist);
            }
        }
    }

    fn publish(&self) {
        let unresponsive = self.unresponsive.as_ref();
        let states = self.states.iter();
        let snapshot = states.map(|state| state.snapshot(&self.provider, unresponsive));
        self.latest.send_replace(snapshot.collect());
    }
}

/// The next event of any reflector, and its index. Cancel safe.
async fn next_event(reflectors: &mut [Reflector<Value>]) -> (usize, ReflectorEvent<Value>) {
    if reflectors.is_empty() {
        return std::future::pending().await;
    }
    let events = reflectors
        .iter_mut()
        .map(|reflector| reflector.next().boxed());
    let (event, index, _) = select_all(events).await;
    (index, event)
}
