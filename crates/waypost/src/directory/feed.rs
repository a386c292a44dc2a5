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

use crate::snapshot::{Catalog, Freshness, Snapshot};

/// What a feed keeps up to date.
pub(crate) trait Picture: Send + Sync + 'static {
    type Answer: Send + 'static;

    fn answered(&self, answer: Self::Answer) -> Self;
    fn failed(&self, error: ProviderError) -> Self;
    fn freshness(&self) -> &Freshness;
    /// Whether it only says that there is nothing.
    fn is_negative(&self) -> bool;
}

impl Picture for Snapshot {
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

    fn is_negative(&self) -> bool {
        !self.is_known()
    }
}

impl Picture for Catalog {
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

    fn is_negative(&self) -> bool {
        false
    }
}

/// One watch at the provider and what it has told, shared by all who ask.
pub(crate) struct Feed<P> {
    current: ArcSwap<P>,
    /// What was known in an earlier run, for as long as the provider has not answered.
    remembered: Option<Arc<P>>,
    changed: watch::Sender<()>,
    /// [`IDLE`], [`USED`] or [`CLOSED`].
    usage: AtomicU8,
    /// Those who hold on to the feed even if they don't read it.
    pins: AtomicUsize,
    task: OnceLock<JoinHandle<()>>,
}

/// Nobody has read it since the last check.
const IDLE: u8 = 0;
/// Somebody has.
const USED: u8 = 1;
/// It has stopped, since nobody read it for long; a new one is needed.
const CLOSED: u8 = 2;

/// How long a feed goes on without readers.
#[derive(Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) known: Duration,
    pub(crate) negative: Duration,
}

impl<P: Picture> Feed<P> {
    /// Begins to follow the watch from `first` on; as long as the provider only fails, what is
    /// `remembered` from an earlier run serves. When nobody has read the feed between two checks,
    /// `idle` apart, it closes and calls `on_close`.
    pub(crate) fn begin(
        first: P,
        remembered: Option<P>,
        watch: BoxStream<'static, Result<P::Answer, ProviderError>>,
        idle: Idle,
        on_event: impl Fn(Event) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let feed = Arc::new(Self {
            current: ArcSwap::from_pointee(first),
            remembered: remembered.map(Arc::new),
            changed: watch::Sender::new(()),
            usage: AtomicU8::new(USED),
            pins: AtomicUsize::new(0),
            task: OnceLock::new(),
        });
        // Begun only now, since it may run at once and must find the feed.
        let task = tokio::spawn(follow(Arc::downgrade(&feed), watch, idle, on_event));
        let _ = feed.task.set(task);
        feed
    }

    /// Waits until the provider has answered or failed, or gives at once what it did.
    pub(crate) async fn settled(&self) -> Arc<P> {
        let mut changes = self.changed.subscribe();
        loop {
            let picture = self.current.load();
            let freshness = picture.freshness();
            if freshness.is_known() || freshness.failure().is_some() {
                return Guard::into_inner(picture);
            }
            drop(picture);
            // The sender is our own, so this never fails.
            let _ = changes.changed().await;
        }
    }

    /// What an earlier run knew, if the provider has not answered in this one.
    pub(crate) fn last_resort(&self, why: ProviderError) -> Option<Arc<P>> {
        let known = self.current.load().freshness().is_known();
        let remembered = self.remembered.as_ref().filter(|_| !known)?;
        Some(Arc::new(remembered.failed(why)))
    }

    /// Takes in what the provider said. Says whether its content is new.
    fn publish(&self, item: Result<P::Answer, ProviderError>) -> bool {
        let before = self.current.load();
        let next = match item {
            Ok(answer) => before.answered(answer),
            Err(error) => match &self.remembered {
                Some(remembered) if !before.freshness().is_known() => remembered.failed(error),
                _ => before.failed(error),
            },
        };
        let mark = |picture: &P| {
            let freshness = picture.freshness();
            let failure = freshness.failure().map(|failure| failure.error().kind());
            (freshness.generation(), freshness.is_known(), failure)
        };
        let (earlier, later) = (mark(&before), mark(&next));
        drop(before);
        self.current.store(Arc::new(next));
        // An answer without news only confirms; nobody needs to wake for it.
        if earlier != later {
            self.changed.send_replace(());
        }
        earlier.0 != later.0
    }

    /// Marks the feed as idle, or as closed if it was idle already.
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
        // One who pinned it between the two looks has the closed feed; the pin reopens it.
        if self.pins.load(Ordering::SeqCst) > 0 {
            self.usage.store(USED, Ordering::SeqCst);
            return false;
        }
        true
    }
}

impl<P> Feed<P> {
    /// What is known now.
    pub(crate) fn load(&self) -> Guard<Arc<P>> {
        self.current.load()
    }

    pub(crate) fn load_full(&self) -> Arc<P> {
        self.current.load_full()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Notes that somebody reads. False if the feed has closed and a new one is needed.
    pub(crate) fn touch(&self) -> bool {
        match self.usage.load(Ordering::Relaxed) {
            // The usual case only reads, so that many cores can share the line.
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

    /// False after the runtime that it ran on has ended, or a provider panicked.
    pub(crate) fn is_running(&self) -> bool {
        self.task.get().is_none_or(|task| !task.is_finished())
    }
}

impl<P> Drop for Feed<P> {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// What happens to a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It says something new.
    News,
    /// It has closed, since nobody read it.
    Closed,
}

async fn follow<P: Picture>(
    feed: Weak<Feed<P>>,
    mut watch: BoxStream<'static, Result<P::Answer, ProviderError>>,
    idle: Idle,
    on_event: impl Fn(Event),
) {
    let mut check_at = Instant::now() + idle.negative;
    loop {
        tokio::select! {
            item = watch.next() => {
                let (Some(feed), Some(item)) = (feed.upgrade(), item) else { return };
                let was_negative = feed.current.load().is_negative();
                if feed.publish(item) {
                    on_event(Event::News);
                }
                if was_negative && !feed.current.load().is_negative() {
                    check_at = Instant::now() + idle.known;
                }
            }
            () = sleep_until(check_at) => {
                let Some(feed) = feed.upgrade() else { return };
                if feed.close_if_idle() {
                    // Whoever works on what it says learns that nobody wants it any more.
                    feed.changed.send_replace(());
                    drop(feed);
                    return on_event(Event::Closed);
                }
                check_at = Instant::now() + match feed.current.load().is_negative() {
                    true => idle.negative,
                    false => idle.known,
                };
            }
        }
    }
}

/// Holds a feed open.
pub(crate) struct Pin<P> {
    feed: Arc<Feed<P>>,
}

impl<P> Pin<P> {
    pub(crate) fn new(feed: Arc<Feed<P>>) -> Self {
        feed.pins.fetch_add(1, Ordering::SeqCst);
        Self { feed }
    }

    pub(crate) fn feed(&self) -> &Arc<Feed<P>> {
        &self.feed
    }
}

impl<P> Drop for Pin<P> {
    fn drop(&mut self) {
        self.feed.pins.fetch_sub(1, Ordering::SeqCst);
    }
}
