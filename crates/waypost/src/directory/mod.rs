//! The directory: one watch per service, however many ask, and the last known good answer.
//!
//! The first look-up of a name begins a watch at the provider and waits for its first answer;
//! every later one reads memory. While the provider fails, the last good answer is served and says
//! how old it is; look-ups of names that were never answered get the failure at once instead of
//! waiting for the next attempt. Names that nobody asks for any more are dropped.
//!
//! `docs/outages.md` tells the whole of what happens while a provider fails.

mod feed;
mod hold;
mod options;
mod store;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use futures_util::StreamExt;
use waypost_core::provider::{Answer, Provider};
use waypost_core::supervision::{ProviderStatus, WatchSupervisor};
use waypost_core::{Error, ProviderError, ProviderErrorKind, ServiceName};

use self::feed::Event;
use self::hold::{Before, hold_empty};
use self::store::Store;
use crate::active_check::keep_checking;
use crate::snapshot::{Catalog, Snapshot};

pub(crate) use feed::{Feed, Pin};
pub use options::DirectoryOptions;

/// What is known of all services that somebody asked for. Clones share it.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Arc<dyn Provider>,
    description: Arc<str>,
    options: DirectoryOptions,
    supervisor: Arc<WatchSupervisor>,
    store: Option<Arc<Store>>,
    /// Whether a task writes the store.
    is_stored: AtomicBool,
    /// Read on each look-up, copied on the rare occasion that a name comes or goes.
    services: ArcSwap<HashMap<ServiceName, Arc<Feed<Snapshot>>>>,
    catalog: ArcSwap<Option<Arc<Feed<Catalog>>>>,
    changing: Mutex<()>,
}

impl Directory {
    /// A directory of what the provider knows.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self::with_options(provider, DirectoryOptions::default())
    }

    /// A directory with other than the default options.
    pub fn with_options(provider: Arc<dyn Provider>, options: DirectoryOptions) -> Self {
        let description = provider.describe();
        let supervisor = match provider.layers().is_empty() {
            true => WatchSupervisor::new(Arc::clone(&description)),
            false => WatchSupervisor::silent(Arc::clone(&description)),
        };
        let store = (options.snapshot_file.as_deref())
            .map(|path| Arc::new(Store::open(path, Arc::clone(&description))));
        Self {
            inner: Arc::new(Inner {
                description,
                provider,
                options,
                supervisor,
                store,
                is_stored: AtomicBool::new(false),
                services: ArcSwap::default(),
                catalog: ArcSwap::default(),
                changing: Mutex::new(()),
            }),
        }
    }

    /// The provider that is asked.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.inner.provider
    }

    /// What is known of a service: at once if it was looked up before, else after the provider's
    /// first answer. Whether anything in it can be used is for [`Snapshot::usable`] to say.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If nothing is known and the provider fails ([`Error::Unreachable`],
    /// [`Error::NotAuthorised`]) or doesn't answer in time ([`Error::TimedOut`]). A name that the
    /// provider doesn't know is an answer, not an error of this method.
    pub async fn lookup(&self, service: &ServiceName) -> Result<Arc<Snapshot>, Error> {
        let feed = self.feed(service);
        self.settled(&feed, Some(service)).await
    }

    /// The names of all services that the provider knows.
    ///
    /// # Errors
    /// As [`lookup`](Self::lookup).
    pub async fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        self.settled(&self.catalog_feed(), None).await
    }

    /// Follows a service; it is not dropped as long as the subscription is held.
    pub fn subscribe(&self, service: &ServiceName) -> Subscription<Snapshot> {
        Subscription::new(Pin::new(self.feed(service)))
    }

    /// Follows the list of all services.
    pub fn subscribe_catalog(&self) -> Subscription<Catalog> {
        Subscription::new(Pin::new(self.catalog_feed()))
    }

    /// What is known of each service that is watched now, in order of names.
    pub fn watched(&self) -> Vec<Arc<Snapshot>> {
        let services = self.inner.services.load();
        let mut all: Vec<_> = services.values().map(|feed| feed.load_full()).collect();
        all.sort_by(|a, b| a.service().cmp(b.service()));
        all
    }

    /// How the provider has done so far; where it is made of several layers, how each of them has,
    /// after the whole.
    pub fn status(&self) -> Vec<ProviderStatus> {
        let mut all = vec![self.inner.supervisor.status()];
        all.extend(self.inner.provider.layers());
        all
    }

    /// The options in force.
    pub fn options(&self) -> &DirectoryOptions {
        &self.inner.options
    }

    pub(crate) async fn settled<P: feed::Picture>(
        &self,
        feed: &Feed<P>,
        service: Option<&ServiceName>,
    ) -> Result<Arc<P>, Error> {
        let waited = self.inner.options.lookup_timeout;
        let picture = match tokio::time::timeout(waited, feed.settled()).await {
            Ok(picture) => picture,
            Err(_) => feed
                .last_resort(self.silent())
                .ok_or_else(|| Error::TimedOut {
                    service: service.cloned(),
                    provider: Arc::clone(&self.inner.description),
                    waited,
                    cause: None,
                })?,
        };
        let freshness = picture.freshness();
        match freshness.failure() {
            Some(failure) if !freshness.is_known() => {
                Err(Error::from_provider(service.cloned(), failure.error()))
            }
            Some(_) if freshness.is_expired() => Err(freshness.expired(service.cloned())),
            _ => Ok(picture),
        }
    }

    fn silent(&self) -> ProviderError {
        let after = self.inner.options.lookup_timeout;
        let kind = ProviderErrorKind::TimedOut { after };
        ProviderError::new(Arc::clone(&self.inner.description), kind, "no answer yet")
    }

    /// The running feed of a service; begins one if there is none.
    pub(crate) fn feed(&self, service: &ServiceName) -> Arc<Feed<Snapshot>> {
        let running = |services: &HashMap<ServiceName, Arc<Feed<Snapshot>>>| {
            let feed = services.get(service)?;
            (feed.touch() && feed.is_running()).then(|| Arc::clone(feed))
        };
        if let Some(feed) = running(&self.inner.services.load()) {
            return feed;
        }
        let _changing = self.inner.changing();
        if let Some(feed) = running(&self.inner.services.load()) {
            return feed;
        }
        let feed = self.begin_feed(service);
        let mut services = HashMap::clone(&self.inner.services.load());
        services.retain(|_, feed| !feed.is_closed());
        services.insert(service.clone(), Arc::clone(&feed));
        self.inner.services.store(Arc::new(services));
        feed
    }

    fn begin_feed(&self, service: &ServiceName) -> Arc<Feed<Snapshot>> {
        let inner = &self.inner;
        let earlier = inner
            .services
            .load()
            .get(service)
            .map(|feed| feed.load_full());
        // Clones share what is known of the endpoints' conduct.
        let pending = Snapshot::pending(service.clone(), Arc::clone(&inner.description))
            .expiring(inner.options.max_stale)
            .with_outlier_detection(inner.options.outlier_detection.clone());
        let (first, unwatched) = match earlier {
            // Its task died with the runtime that it ran on. What it learned is better than
            // nothing, but old until the new watch confirms it.
            Some(snapshot) if snapshot.freshness().is_known() => {
                let description = Arc::clone(&inner.description);
                let reason = "the watch ended with its runtime";
                let stale = snapshot.failed(ProviderError::unreachable(description, reason));
                (stale, true)
            }
            _ => (pending.clone(), false),
        };
        let remembered = inner.store.as_ref().and_then(|store| store.recall(service));
        let remembered = remembered.map(|known| {
            let at = known.confirmed_at();
            pending.remembered(known.instances, at)
        });
        let known = [Some(&first), remembered.as_ref()];
        let before = Before {
            had_instances: known
                .into_iter()
                .flatten()
                .any(|s| !s.endpoints().is_empty()),
            unwatched,
        };

        let provider = Arc::clone(&inner.provider);
        let name = service.clone();
        let watch = inner
            .supervisor
            .supervise(service.as_str(), move || provider.watch(&name));
        let watch = watch.map(|item| {
            item.map(|answer| match answer {
                Answer::Instances(instances) => Some(instances),
                Answer::Unknown => None,
            })
        });
        let description = Arc::clone(&inner.description);
        let watch = hold_empty(watch.boxed(), &inner.options, description, before);
        self.begin_storing();
        let weak = Arc::downgrade(inner);
        let feed = Feed::begin(
            first,
            remembered,
            watch,
            inner.options.idle(),
            move |event| {
                let Some(inner) = weak.upgrade() else { return };
                match (event, &inner.store) {
                    (Event::Closed, _) => inner.sweep(),
                    (Event::News, Some(store)) => store.note_change(),
                    (Event::News, None) => {}
                }
            },
        );
        if let Some(check) = &inner.options.active_check {
            let (weak, news) = (Arc::downgrade(&feed), feed.subscribe());
            let current = move || {
                let feed = weak.upgrade().filter(|feed| !feed.is_closed())?;
                Some(feed.load_full())
            };
            tokio::spawn(keep_checking(check.clone(), current, news));
        }
        feed
    }

    /// Starts the task that writes the snapshot file, unless it runs.
    fn begin_storing(&self) {
        let Some(store) = &self.inner.store else {
            return;
        };
        if self.inner.is_stored.swap(true, Ordering::SeqCst) {
            return;
        }
        let running = StoreRuns(Arc::downgrade(&self.inner));
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let known = || {
                let inner = running.0.upgrade()?;
                let services = inner.services.load();
                Some(services.values().map(|feed| feed.load_full()).collect())
            };
            store.keep(known).await;
        });
    }

    fn catalog_feed(&self) -> Arc<Feed<Catalog>> {
        let running = || {
            let feed = Option::clone(&self.inner.catalog.load())?;
            (feed.touch() && feed.is_running()).then_some(feed)
        };
        if let Some(feed) = running() {
            return feed;
        }
        let _changing = self.inner.changing();
        if let Some(feed) = running() {
            return feed;
        }
        let provider = Arc::clone(&self.inner.provider);
        let supervisor = &self.inner.supervisor;
        let watch = supervisor.supervise("the list of services", move || provider.watch_names());
        let description = Arc::clone(&self.inner.description);
        let first = Catalog::pending(description).expiring(self.inner.options.max_stale);
        let feed = Feed::begin(first, None, watch, self.inner.options.idle(), |_| ());
        self.inner.catalog.store(Arc::new(Some(Arc::clone(&feed))));
        feed
    }
}

impl Inner {
    /// Held while the set of feeds changes. It guards no data, so a panic elsewhere leaves nothing
    /// half done.
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the feeds that closed themselves.
    fn sweep(&self) {
        let _changing = self.changing();
        let mut services = HashMap::clone(&self.services.load());
        services.retain(|_, feed| !feed.is_closed());
        self.services.store(Arc::new(services));
    }
}

/// Notes that the task has ended, as it does when its runtime ends.
struct StoreRuns(std::sync::Weak<Inner>);

impl Drop for StoreRuns {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.is_stored.store(false, Ordering::SeqCst);
        }
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("provider", &self.inner.description)
            .field("services", &self.inner.services.load().len())
            .finish_non_exhaustive()
    }
}

/// One that follows a service, or the list of services, as it changes.
///
/// ```
/// # async fn follow(directory: waypost::Directory) -> Result<(), waypost::Error> {
/// let auth = "auth".parse()?;
/// let mut auth = directory.subscribe(&auth);
/// loop {
///     let snapshot = auth.changed().await;
///     println!("{} instances of auth", snapshot.instances().len());
/// }
/// # }
/// ```
pub struct Subscription<P> {
    pin: Pin<P>,
    changes: tokio::sync::watch::Receiver<()>,
}

impl<P> Subscription<P> {
    fn new(pin: Pin<P>) -> Self {
        let mut changes = pin.feed().subscribe();
        // What is there already counts as the first change.
        changes.mark_changed();
        Self { pin, changes }
    }

    /// What is known now, without waiting and without a copy.
    pub fn current(&self) -> Guard<Arc<P>> {
        self.pin.feed().load()
    }

    /// What is known after the next change, be it of the content or of its freshness. The first
    /// call gives what is known already.
    pub async fn changed(&mut self) -> Arc<P> {
        // The sender lives in the feed that the pin holds, so this never fails.
        let _ = self.changes.changed().await;
        self.pin.feed().load_full()
    }
}
