//! The directory: one watch per service, shared by all callers, and the last known good answer.
//!
//! The first look-up of a service starts a watch at the provider and waits for its first answer; later
//! look-ups read memory. While the provider fails, the last good answer is served with its age;
//! look-ups of services that were never answered return the failure at once instead of waiting for the
//! next attempt. Watches of services that are no longer used are closed.
//!
//! `docs/outages.md` describes what happens while a provider fails.

mod current;
mod hold_empty;
mod options;
mod shared_watch;
mod snapshot_file;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use futures_util::StreamExt;
use waypost_core::provider::{Provider, ServiceAnswer};
use waypost_core::supervision::{ProviderStatus, WatchSupervisor};
use waypost_core::{Error, ProviderError, ProviderErrorKind, ServiceName};

use self::hold_empty::{Before, hold_empty};
use self::shared_watch::{Event, WatchedState};
use self::snapshot_file::{Known, SnapshotFile};
use crate::active_check::run_checks;
use crate::name_map::NameMap;
use crate::snapshot::{Catalog, Snapshot};

pub use current::Current;
pub use options::DirectoryOptions;
pub(crate) use shared_watch::{Pin, SharedWatch};

/// The snapshots of all services in use. Clones share them. Its futures must run in a Tokio runtime.
#[derive(Clone)]
pub struct Directory {
    inner: Arc<Inner>,
}

struct Inner {
    provider: Arc<dyn Provider>,
    description: Arc<str>,
    options: DirectoryOptions,
    supervisor: Arc<WatchSupervisor>,
    snapshot_file: Option<Arc<SnapshotFile>>,
    /// Whether a task writes the snapshot file.
    writer_runs: AtomicBool,
    services: NameMap<Arc<SharedWatch<Snapshot>>>,
    catalog: ArcSwap<Option<Arc<SharedWatch<Catalog>>>>,
    /// Locked while a watch is started or closed.
    changing: Mutex<()>,
}

impl Directory {
    /// A directory of the provider's services, with the default options.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self::with_options(provider, DirectoryOptions::default())
    }

    /// A directory with other options.
    pub fn with_options(provider: Arc<dyn Provider>, options: DirectoryOptions) -> Self {
        let description = provider.describe();
        let supervisor = if provider.layer_status().is_empty() {
            WatchSupervisor::new(Arc::clone(&description))
        } else {
            WatchSupervisor::silent(Arc::clone(&description))
        };
        let snapshot_file = (options.snapshot_file.as_deref())
            .map(|path| Arc::new(SnapshotFile::open(path, Arc::clone(&description))));
        Self {
            inner: Arc::new(Inner {
                description,
                provider,
                options,
                supervisor,
                snapshot_file,
                writer_runs: AtomicBool::new(false),
                services: NameMap::default(),
                catalog: ArcSwap::default(),
                changing: Mutex::new(()),
            }),
        }
    }

    /// The provider.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        &self.inner.provider
    }

    /// The snapshot of a service: at once if it is already watched, otherwise after the provider's
    /// first answer. [`Snapshot::usable`] returns the instances that can be used.
    ///
    /// # Errors
    /// If nothing is known and the provider fails ([`Error::Unreachable`], [`Error::NotAuthorised`])
    /// or doesn't answer in time ([`Error::TimedOut`]). It is not an error if the service is unknown:
    /// the snapshot says so.
    pub async fn lookup(&self, service: &ServiceName) -> Result<Arc<Snapshot>, Error> {
        let watch = self.watch(service);
        self.settled(&watch, Some(service)).await
    }

    /// The names of all services that the provider knows.
    ///
    /// # Errors
    /// The same as for [`lookup`](Self::lookup).
    pub async fn catalog(&self) -> Result<Arc<Catalog>, Error> {
        self.settled(&self.watch_catalog(), None).await
    }

    /// Subscribes to a service. Its watch stays open while the subscription is held.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn subscribe(&self, service: &ServiceName) -> Subscription<Snapshot> {
        Subscription::new(Pin::new(self.watch(service)))
    }

    /// Subscribes to the list of all services.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn subscribe_catalog(&self) -> Subscription<Catalog> {
        Subscription::new(Pin::new(self.watch_catalog()))
    }

    /// The snapshots of all services that are watched now, in order of their names.
    pub fn watched(&self) -> Vec<Arc<Snapshot>> {
        let mut all = self.inner.snapshots();
        all.sort_by(|a, b| a.service().cmp(b.service()));
        all
    }

    /// The status of the provider, followed by that of each of its layers, if it has any.
    pub fn status(&self) -> Vec<ProviderStatus> {
        let mut all = vec![self.inner.supervisor.status()];
        all.extend(self.inner.provider.layer_status());
        all
    }

    /// The options in use.
    pub fn options(&self) -> &DirectoryOptions {
        &self.inner.options
    }

    /// The value of a watch after the provider's first answer, or the reason why there is none.
    pub(crate) async fn settled<P: WatchedState>(
        &self,
        watch: &SharedWatch<P>,
        service: Option<&ServiceName>,
    ) -> Result<Arc<P>, Error> {
        let waited = self.inner.options.lookup_timeout;
        let value = match tokio::time::timeout(waited, watch.settled()).await {
            Ok(value) => value,
            Err(_) => watch
                .remembered(self.timed_out())
                .ok_or_else(|| Error::TimedOut {
                    service: service.cloned(),
                    provider: Arc::clone(&self.inner.description),
                    waited,
                    cause: None,
                })?,
        };
        let freshness = value.freshness();
        match freshness.failure() {
            Some(failure) if !freshness.is_known() => {
                Err(Error::from_provider(service.cloned(), failure.error()))
            }
            Some(_) if freshness.is_expired() => Err(freshness.expired(service.cloned())),
            _ => Ok(value),
        }
    }

    fn timed_out(&self) -> ProviderError {
        let after = self.inner.options.lookup_timeout;
        let kind = ProviderErrorKind::TimedOut { after };
        ProviderError::new(Arc::clone(&self.inner.description), kind, "no answer yet")
    }

    /// The running watch of a service; starts one if there is none.
    pub(crate) fn watch(&self, service: &ServiceName) -> Arc<SharedWatch<Snapshot>> {
        let services = &self.inner.services;
        let running = || {
            let shard = services.shard(service.as_str());
            let watch = shard.get(service)?;
            (watch.touch() && watch.is_running()).then(|| Arc::clone(watch))
        };
        if let Some(watch) = running() {
            return watch;
        }
        let _changing = self.inner.changing();
        if let Some(watch) = running() {
            return watch;
        }
        let watch = self.start_watch(service);
        services.change(service.as_str(), |shard| {
            let mut shard = shard.clone();
            shard.retain(|_, watch| !watch.is_closed());
            shard.insert(service.clone(), Arc::clone(&watch));
            Some(shard)
        });
        watch
    }

    fn start_watch(&self, service: &ServiceName) -> Arc<SharedWatch<Snapshot>> {
        let inner = &self.inner;
        let earlier = inner
            .services
            .shard(service.as_str())
            .get(service)
            .map(|watch| watch.load_full());
        // Clones share the state of the endpoints.
        let pending = Snapshot::pending(service.clone(), Arc::clone(&inner.description))
            .expiring(inner.options.max_stale)
            .with_outlier_detection(inner.options.outlier_detection.clone());
        let (first, was_interrupted) = match earlier {
            // The task of the watch ended with its runtime. Its value is served as stale until the new
            // watch confirms it.
            Some(snapshot) if snapshot.freshness().is_known() => {
                let description = Arc::clone(&inner.description);
                let reason = "the watch ended with its runtime";
                let stale = snapshot.failed(ProviderError::unreachable(description, reason));
                (stale, true)
            }
            _ => (pending.clone(), false),
        };
        let remembered = inner.snapshot_file.as_ref();
        let remembered = remembered.and_then(|file| file.recall(service));
        let remembered = remembered.map(|known| {
            let at = known.confirmed_at();
            pending.remembered(known.answer, at)
        });
        let known = [Some(&first), remembered.as_ref()];
        let known: Vec<_> = known.into_iter().flatten().collect();
        let before = Before {
            had_instances: known.iter().any(|s| !s.endpoints().is_empty()),
            had_ready: known.iter().any(|s| !s.ready().is_empty()),
            was_interrupted,
        };

        let provider = Arc::clone(&inner.provider);
        let name = service.clone();
        let answers = inner
            .supervisor
            .supervise(service.as_str(), move || provider.watch(&name));
        let answers = answers.map(|item| {
            item.map(|answer| match answer {
                ServiceAnswer::Instances(instances) => Some(instances),
                ServiceAnswer::Unknown => None,
            })
        });
        let description = Arc::clone(&inner.description);
        let answers = hold_empty(answers.boxed(), &inner.options, description, before);
        self.start_writer();
        let weak = Arc::downgrade(inner);
        let name = service.clone();
        let watch = SharedWatch::start(
            first,
            remembered,
            answers,
            inner.options.idle(),
            move |event| {
                let Some(inner) = weak.upgrade() else { return };
                match (event, &inner.snapshot_file) {
                    (Event::Closed, _) => inner.remove_closed(&name),
                    (Event::Changed, Some(file)) => file.mark_changed(),
                    (Event::Changed, None) => {}
                }
            },
        );
        if let Some(check) = &inner.options.active_check {
            let (weak, changes) = (Arc::downgrade(&watch), watch.subscribe());
            let current = move || {
                let watch = weak.upgrade().filter(|watch| !watch.is_closed())?;
                Some(watch.load_full())
            };
            tokio::spawn(run_checks(check.clone(), current, changes));
        }
        watch
    }

    /// Starts the task that writes the snapshot file, unless it is running.
    fn start_writer(&self) {
        let Some(file) = &self.inner.snapshot_file else {
            return;
        };
        if self.inner.writer_runs.swap(true, Ordering::SeqCst) {
            return;
        }
        let running = WriterRuns(Arc::downgrade(&self.inner));
        let file = Arc::clone(file);
        tokio::spawn(async move {
            let known = || {
                let inner = running.0.upgrade()?;
                let catalog = Option::clone(&inner.catalog.load());
                Some(Known {
                    services: inner.snapshots(),
                    // A closed watch no longer confirms its last value.
                    catalog: (catalog.filter(|watch| !watch.is_closed()))
                        .map(|watch| watch.load_full()),
                })
            };
            file.write_changes(known).await;
        });
    }

    fn watch_catalog(&self) -> Arc<SharedWatch<Catalog>> {
        let running = || {
            let watch = Option::clone(&self.inner.catalog.load())?;
            (watch.touch() && watch.is_running()).then_some(watch)
        };
        if let Some(watch) = running() {
            return watch;
        }
        let _changing = self.inner.changing();
        if let Some(watch) = running() {
            return watch;
        }
        let watch = self.start_catalog_watch();
        self.inner.catalog.store(Arc::new(Some(Arc::clone(&watch))));
        watch
    }

    fn start_catalog_watch(&self) -> Arc<SharedWatch<Catalog>> {
        let inner = &self.inner;
        let description = || Arc::clone(&inner.description);
        let pending = Catalog::pending(description()).expiring(inner.options.max_stale);
        let earlier = Option::clone(&inner.catalog.load())
            .filter(|watch| !watch.is_closed())
            .map(|watch| watch.load_full());
        let first = match earlier {
            // Like the watch of a service, it has ended with its runtime.
            Some(catalog) if catalog.freshness().is_known() => {
                let reason = "the watch ended with its runtime";
                catalog.failed(ProviderError::unreachable(description(), reason))
            }
            _ => pending.clone(),
        };
        let remembered = inner.snapshot_file.as_ref();
        let remembered = remembered.and_then(|file| file.recall_names());
        let remembered = remembered.map(|known| {
            let at = known.confirmed_at();
            pending.remembered(known.answer, at)
        });
        let provider = Arc::clone(&inner.provider);
        let answers =
            (inner.supervisor).supervise("the list of services", move || provider.watch_names());
        self.start_writer();
        let file = inner.snapshot_file.clone();
        let on_event = move |event| {
            if let (Event::Changed, Some(file)) = (event, &file) {
                file.mark_changed();
            }
        };
        SharedWatch::start(first, remembered, answers, inner.options.idle(), on_event)
    }
}

impl Inner {
    /// Locked while the set of watches changes. It guards no data, so a poisoned lock can still be used.
    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the watch of a service, if it has closed.
    fn remove_closed(&self, service: &ServiceName) {
        let _changing = self.changing();
        self.services.change(service.as_str(), |shard| {
            let mut shard = shard.clone();
            shard.retain(|_, watch| !watch.is_closed());
            Some(shard)
        });
    }

    fn snapshots(&self) -> Vec<Arc<Snapshot>> {
        let watches = self.services.values();
        watches.iter().map(|watch| watch.load_full()).collect()
    }
}

/// Records that the writer has ended, for example with its runtime.
struct WriterRuns(std::sync::Weak<Inner>);

impl Drop for WriterRuns {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.writer_runs.store(false, Ordering::SeqCst);
        }
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directory")
            .field("provider", &self.inner.description)
            .field("services", &self.inner.services.len())
            .finish_non_exhaustive()
    }
}

/// A subscription to a service, or to the list of services.
///
/// ```
/// # async fn follow(directory: waypost::directory::Directory) -> Result<(), waypost::Error> {
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
        let mut changes = pin.watch().subscribe();
        // The current value counts as the first change.
        changes.mark_changed();
        Self { pin, changes }
    }

    /// The current value, without waiting or copying.
    pub fn current(&self) -> Current<P> {
        Current::new(self.pin.watch().load())
    }

    /// The value after the next change of content or freshness. The first call returns the current
    /// value.
    pub async fn changed(&mut self) -> Arc<P> {
        // The pin keeps the sender alive, so this can't fail.
        let _ = self.changes.changed().await;
        self.pin.watch().load_full()
    }
}
