//! One watch per service, shared by all of its readers.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use waypost_core::ProviderError;

use crate::endpoint::{Endpoint, RegistryState};
use crate::snapshot::{Catalog, Failure, Freshness, Snapshot};
use crate::telemetry::ServiceState;

/// A value that follows the answers of a watch.
pub(crate) trait WatchedState: Send + Sync + 'static {
    /// What the provider sends.
    type Answer: Send + 'static;

    /// The value after an answer.
    fn answered(&self, answer: Self::Answer) -> Self;
    /// The value after a failed attempt.
    fn failed(&self, error: ProviderError) -> Self;
    /// Called when this value has replaced `before`.
    fn replaced(&self, before: &Self);
    fn freshness(&self) -> &Freshness;
    /// Whether the service is unknown, or not known yet.
    fn is_negative(&self) -> bool;
}

impl WatchedState for Snapshot {
    type Answer = Option<Vec<Arc<waypost_core::Instance>>>;

    fn answered(&self, answer: Self::Answer) -> Self {
        self.answered(answer)
    }

    fn failed(&self, error: ProviderError) -> Self {
        self.failed(error)
    }

    fn freshness(&self) -> &Freshness {
        self.freshness()
    }

    fn replaced(&self, before: &Self) {
        update_outlier_detector(before, self);
        update_metrics(before, self);
    }

    fn is_negative(&self) -> bool {
        !self.is_known()
    }
}

impl WatchedState for Catalog {
    type Answer = BTreeSet<waypost_core::ServiceName>;

    fn answered(&self, answer: Self::Answer) -> Self {
        self.answered(answer)
    }

    fn failed(&self, error: ProviderError) -> Self {
        self.failed(error)
    }

    fn freshness(&self) -> &Freshness {
        self.freshness()
    }

    fn replaced(&self, _: &Self) {}

    fn is_negative(&self) -> bool {
        false
    }
}

/// Passes the registry's changes to the outlier detector: the number of ready endpoints, endpoints that
/// were removed, and endpoints that became critical or recovered.
fn update_outlier_detector(before: &Snapshot, after: &Snapshot) {
    let detector = &after.group().detector;
    detector.set_size(after.ready().len());
    for id in detector.ejected_ids() {
        let Some(endpoint) = after.endpoint(&id) else {
            detector.remove(&id);
            continue;
        };
        let is_critical = |e: &Arc<Endpoint>| e.registry_state() == RegistryState::Critical;
        let was_critical = before.endpoint(&id).is_some_and(is_critical);
        if was_critical != is_critical(endpoint) {
            detector.clear(endpoint.view(Instant::now()));
        }
    }
}

fn update_metrics(before: &Snapshot, after: &Snapshot) {
    let metrics = &after.group().metrics;
    let freshness = after.freshness();
    let attempts = |failure: Option<&Failure>| failure.map_or(0, Failure::attempts);
    if let Some(failure) = freshness.failure()
        && attempts(Some(failure)) != attempts(before.freshness().failure())
    {
        metrics.watch_failed(failure.error().kind());
    }
    metrics.watched(|| ServiceState {
        ready: after.ready().len(),
        all: after.endpoints().len(),
        stale: freshness.failure().is_some(),
        confirmed_at: freshness.confirmed_at(),
    });
}

/// One watch at the provider, shared by all readers of the service, and its current value.
pub(crate) struct SharedWatch<P> {
    current: ArcSwap<P>,
    /// The value from an earlier run of the program, used until the provider has answered.
    remembered: Option<Arc<P>>,
    changed: watch::Sender<()>,
    /// [`IDLE`], [`USED`] or [`CLOSED`].
    usage: AtomicU8,
    /// The number of [`Pin`]s, which keep the watch open although it isn't read.
    pins: AtomicUsize,
    task: OnceLock<JoinHandle<()>>,
}

/// Not read since the last check.
const IDLE: u8 = 0;
/// Read since the last check.
const USED: u8 = 1;
/// Closed because it wasn't read; a new watch is needed.
const CLOSED: u8 = 2;

/// How long a watch stays open without readers.
#[derive(Clone, Copy)]
pub(crate) struct Idle {
    /// For a known service.
    pub(crate) known: Duration,
    /// For an unknown service.
    pub(crate) negative: Duration,
}

impl<P: WatchedState> SharedWatch<P> {
    /// Starts to follow the stream of answers, with `first` as the initial value. While the provider
    /// only fails, `remembered` from an earlier run is served. If the value isn't read between two
    /// checks, `idle` apart, the watch closes. `on_event` is called when the value changes and when the
    /// watch closes.
    pub(crate) fn start(
        first: P,
        remembered: Option<P>,
        answers: BoxStream<'static, Result<P::Answer, ProviderError>>,
        idle: Idle,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let watch = Arc::new(Self {
            current: ArcSwap::from_pointee(first),
            remembered: remembered.map(Arc::new),
            changed: watch::Sender::new(()),
            usage: AtomicU8::new(USED),
            pins: AtomicUsize::new(0),
            task: OnceLock::new(),
        });
        // Spawned after the watch exists, since the task may run at once.
        let task = tokio::spawn(follow(
            StaleOnDrop(Arc::downgrade(&watch)),
            answers,
            idle,
            on_event,
        ));
        let _ = watch.task.set(task);
        watch
    }

    /// The value after the provider's first answer or failure.
    pub(crate) async fn settled(&self) -> Arc<P> {
        let mut changes = self.changed.subscribe();
        loop {
            let value = self.current.load();
            if value.freshness().is_settled() {
                return Guard::into_inner(value);
            }
            drop(value);
            // The sender is a field of `self`, so this can't fail.
            let _ = changes.changed().await;
        }
    }

    /// The value from an earlier run, if the provider has not answered in this one.
    pub(crate) fn remembered(&self, why: ProviderError) -> Option<Arc<P>> {
        let known = self.current.load().freshness().is_known();
        let remembered = self.remembered.as_ref().filter(|_| !known)?;
        Some(Arc::new(remembered.failed(why)))
    }

    /// Publishes the value after an answer or a failure. Returns whether its content has changed.
    fn publish(&self, item: Result<P::Answer, ProviderError>) -> bool {
        let before = self.current.load();
        let next = match item {
            Ok(answer) => before.answered(answer),
            Err(error) => match &self.remembered {
                Some(remembered) if !before.freshness().is_known() => remembered.failed(error),
                _ => before.failed(error),
            },
        };
        let mark = |value: &P| {
            let freshness = value.freshness();
            let failure = freshness.failure().map(|failure| failure.error().kind());
            (freshness.generation(), freshness.is_known(), failure)
        };
        let (earlier, later) = (mark(&before), mark(&next));
        let next = Arc::new(next);
        self.current.store(Arc::clone(&next));
        next.replaced(&before);
        // An answer that confirms the current value wakes no subscriber.
        if earlier != later {
            self.changed.send_replace(());
        }
        earlier.0 != later.0
    }

    /// Marks the watch as idle, or as closed if it was already idle.
    fn close_if_idle(&self) -> bool {
        if self.pins.load(Ordering::SeqCst) > 0 {
            return false;
        }
        if self.usage.swap(IDLE, Ordering::SeqCst) == USED {
            return false;
        }
        let closed = self
            .usage
            .compare_exchange(IDLE, CLOSED, Ordering::SeqCst, Ordering::SeqCst);
        if closed.is_err() {
            return false;
        }
        // Pinned between the two checks: the pin reopens the watch.
        if self.pins.load(Ordering::SeqCst) > 0 {
            self.usage.store(USED, Ordering::SeqCst);
            return false;
        }
        true
    }
}

impl<P> SharedWatch<P> {
    /// The current value.
    pub(crate) fn load(&self) -> Guard<Arc<P>> {
        self.current.load()
    }

    pub(crate) fn load_full(&self) -> Arc<P> {
        self.current.load_full()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Marks the watch as used. Returns false if it is closed and a new one is needed.
    pub(crate) fn touch(&self) -> bool {
        match self.usage.load(Ordering::Relaxed) {
            // The usual case only reads, so cores can share the cache line.
            USED => true,
            CLOSED => false,
            _ => self
                .usage
                .compare_exchange(IDLE, USED, Ordering::SeqCst, Ordering::SeqCst)
                .map_or_else(|now| now == USED, |_| true),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.usage.load(Ordering::SeqCst) == CLOSED
    }

    /// False after its runtime has ended, or after the provider has panicked.
    pub(crate) fn is_running(&self) -> bool {
        self.task.get().is_none_or(|task| !task.is_finished())
    }
}

impl<P> Drop for SharedWatch<P> {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// An event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its value has changed.
    Changed,
    /// It has closed because it wasn't read.
    Closed,
}

async fn follow<P: WatchedState>(
    followed: StaleOnDrop<P>,
    mut answers: BoxStream<'static, Result<P::Answer, ProviderError>>,
    idle: Idle,
    on_event: impl Fn(Event),
) {
    let watch = &followed.0;
    let mut check_at = Instant::now() + idle.negative;
    loop {
        tokio::select! {
            item = answers.next() => {
                let (Some(watch), Some(item)) = (watch.upgrade(), item) else { return };
                let was_negative = watch.current.load().is_negative();
                if watch.publish(item) {
                    on_event(Event::Changed);
                }
                if was_negative && !watch.current.load().is_negative() {
                    check_at = Instant::now() + idle.known;
                }
            }
            () = sleep_until(check_at) => {
                let Some(watch) = watch.upgrade() else { return };
                if watch.close_if_idle() {
                    // Wakes tasks that work on the value, so that they end.
                    watch.changed.send_replace(());
                    drop(watch);
                    return on_event(Event::Closed);
                }
                check_at = Instant::now() + if watch.current.load().is_negative() {
                    idle.negative
                } else {
                    idle.known
                };
            }
        }
    }
}

/// Marks the value of a watch as stale when its task ends, with its runtime or by a panic. Without this,
/// readers would take the last value for the current one.
struct StaleOnDrop<P: WatchedState>(Weak<SharedWatch<P>>);

impl<P: WatchedState> Drop for StaleOnDrop<P> {
    fn drop(&mut self) {
        let Some(watch) = self.0.upgrade().filter(|watch| !watch.is_closed()) else {
            return;
        };
        let provider: Arc<str> = watch.load().freshness().provider().into();
        let reason = "the watch has ended with its runtime";
        watch.publish(Err(ProviderError::unreachable(provider, reason)));
    }
}

/// Keeps a watch open.
pub(crate) struct Pin<P> {
    watch: Arc<SharedWatch<P>>,
}

impl<P> Pin<P> {
    pub(crate) fn new(watch: Arc<SharedWatch<P>>) -> Self {
        watch.pins.fetch_add(1, Ordering::SeqCst);
        Self { watch }
    }

    pub(crate) fn watch(&self) -> &Arc<SharedWatch<P>> {
        &self.watch
    }
}

impl<P> Drop for Pin<P> {
    fn drop(&mut self) {
        self.watch.pins.fetch_sub(1, Ordering::SeqCst);
    }
}
