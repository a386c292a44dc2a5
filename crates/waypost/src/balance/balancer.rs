//! Picks endpoints of one service.

use std::fmt;
use std::sync::Arc;

use arc_swap::Guard;
use tokio::task::AbortHandle;
use waypost_core::{Error, Instance, InstanceId, ServiceName};

use super::explain::Explanation;
use super::pick::Pick;
use super::picker::PreparedPicker;
use super::refresh::BalancerState;
use super::{BalancerOptions, Key, Strategy, explain, refresh};
use crate::directory::{Current, Directory, Pin, SharedWatch};
use crate::endpoint::Endpoint;
use crate::outlier::{BalanceCounters, BalanceEvents};
use crate::snapshot::Snapshot;
use crate::telemetry::ServiceMetrics;

/// Picks endpoints of one service.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use waypost::{Instance, ServiceDiscoveryClient, ServiceName};
/// # use waypost::provider::MemoryProvider;
/// # let memory = MemoryProvider::new();
/// # memory.insert(Instance::builder(ServiceName::new("auth")?, "10.0.0.7".parse()?, 80).build()?);
/// # let client = ServiceDiscoveryClient::builder().provider(memory).build()?;
/// let balancer = client.balancer("auth")?;
/// balancer.ready().await?;                  // waits for the first answer
/// let instance = balancer.pick()?;          // from memory
/// println!("call {}", instance.url());
/// let request = instance.lease();           // in flight until dropped
/// # assert_eq!(request.endpoint().in_flight(), 1);
/// request.succeeded();                      // or failed(), or rejected()
/// # Ok::<(), waypost::Error>(())
/// # }).unwrap();
/// ```
pub struct Balancer {
    directory: Directory,
    service: ServiceName,
    state: Arc<BalancerState>,
    refresh: AbortHandle,
    /// Keeps the watch open while it isn't read.
    _pin: Option<Pin<Snapshot>>,
}

impl Balancer {
    /// Watches the service for as long as the balancer is held, with the default options.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn new(directory: &Directory, service: &ServiceName, strategy: Box<dyn Strategy>) -> Self {
        Self::with_options(directory, service, strategy, BalancerOptions::default())
    }

    /// As [`new`](Self::new), with other options.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn with_options(
        directory: &Directory,
        service: &ServiceName,
        strategy: Box<dyn Strategy>,
        options: BalancerOptions,
    ) -> Self {
        let mut balancer = Self::unpinned(directory, service, strategy, options);
        balancer._pin = Some(Pin::new(Arc::clone(balancer.watch())));
        balancer
    }

    /// As [`with_options`](Self::with_options), but the directory may end the watch when the service
    /// is no longer used.
    pub(crate) fn unpinned(
        directory: &Directory,
        service: &ServiceName,
        strategy: Box<dyn Strategy>,
        options: BalancerOptions,
    ) -> Self {
        let watch = directory.watch(service);
        // Subscribed before the first picker is prepared, so that no change is missed.
        let snapshots = watch.subscribe();
        let ejections = watch.load().group().detector.subscribe();
        let state = BalancerState::new(watch, strategy.into(), options);
        let task = refresh::keep_fresh(Arc::downgrade(&state), snapshots, ejections);
        Self {
            directory: directory.clone(),
            service: service.clone(),
            state,
            refresh: tokio::spawn(task).abort_handle(),
            _pin: None,
        }
    }

    fn watch(&self) -> &Arc<SharedWatch<Snapshot>> {
        &self.state.watch
    }

    /// The metrics of the service.
    #[inline(always)]
    pub(crate) fn metrics(&self) -> &ServiceMetrics {
        &self.state.group.metrics
    }

    /// How many endpoints a pick chooses from.
    #[cfg(any(feature = "reqwest", feature = "tower"))]
    pub(crate) fn candidate_count(&self) -> usize {
        self.state.picker.load().candidate_count()
    }

    /// Whether its watch still runs; if not, another balancer is needed.
    pub(crate) fn is_live(&self) -> bool {
        self.watch().touch() && self.watch().is_running() && !self.refresh.is_finished()
    }

    /// Whether its watch was closed because it was not used.
    pub(crate) fn is_closed(&self) -> bool {
        self.watch().is_closed()
    }

    /// The service whose endpoints it picks.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The strategy in use.
    pub fn strategy(&self) -> Arc<dyn Strategy> {
        Arc::clone(&self.state.picker.load().strategy)
    }

    /// Uses another strategy from now on. Requests in flight, latencies and ejections are kept.
    pub fn set_strategy(&self, strategy: Box<dyn Strategy>) {
        self.state.set_strategy(strategy.into());
    }

    /// Waits for the provider's first answer.
    ///
    /// # Errors
    /// As [`Directory::lookup`].
    pub async fn ready(&self) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.directory.settled(self.watch(), Some(&self.service));
        let snapshot = snapshot.await?;
        self.state.refresh();
        Ok(snapshot)
    }

    /// The current snapshot of the service.
    pub fn snapshot(&self) -> Current<Snapshot> {
        Current::new(self.watch().load())
    }

    /// Which instances are picked, which are not, and why. For diagnosis: too slow to call for each
    /// request.
    pub fn explain(&self) -> Explanation {
        self.state.refresh();
        explain::explain(&self.state.picker.load(), self.state.options())
    }

    /// Subscribes to later decisions: ejections, readmissions, panic mode.
    pub fn events(&self) -> BalanceEvents {
        self.state.group.detector.events().subscribe()
    }

    /// The number of decisions of each kind, for metrics.
    pub fn counters(&self) -> BalanceCounters {
        let detector = &self.state.group.detector;
        BalanceCounters {
            ejected_now: detector.ejected_count() as u64,
            ..detector.events().counters()
        }
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    /// If there is none to choose from: as [`Snapshot::usable`], or, with a
    /// [selector](BalancerOptions::selector), as [`Snapshot::usable_matching`].
    #[inline]
    pub fn pick(&self) -> Result<Pick, Error> {
        self.choose(None)
    }

    /// Chooses an endpoint if that needs no lock.
    #[inline]
    pub(crate) fn try_pick(&self) -> Option<Pick> {
        let picker = self.state.picker.load();
        let index = picker.choose_if_ready(None)?;
        self.metrics().picked();
        Some(Pick::new(picker, index))
    }

    /// Chooses the endpoint for a key; any endpoint, if the strategy ignores keys.
    ///
    /// # Errors
    /// As [`pick`](Self::pick).
    pub fn pick_for(&self, key: Key) -> Result<Pick, Error> {
        self.choose(Some(key))
    }

    /// Chooses an endpoint other than those already tried; one of these only if there is no other.
    ///
    /// # Errors
    /// As [`pick`](Self::pick).
    pub fn pick_except(&self, tried: &[InstanceId]) -> Result<Pick, Error> {
        if tried.is_empty() {
            return self.pick();
        }
        let is_untried = |instance: &Instance| !tried.contains(instance.id());
        match self.pick_where(is_untried)? {
            Some(pick) => Ok(pick),
            None => self.pick(),
        }
    }

    /// Chooses an endpoint whose instance is accepted, for example by tag, version or metadata. `None`
    /// if no usable endpoint is.
    ///
    /// ```
    /// # fn example(balancer: &waypost::Balancer) -> Result<(), waypost::Error> {
    /// let canary = balancer.pick_where(|instance| instance.version() == Some("2.0.0"))?;
    /// # let _ = canary; Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`pick`](Self::pick).
    pub fn pick_where(&self, accept: impl Fn(&Instance) -> bool) -> Result<Option<Pick>, Error> {
        let picker = self.usable(self.state.picker.load())?;
        let index = picker.choose_where(accept);
        if index.is_some() {
            self.metrics().picked();
        }
        Ok(index.map(|index| Pick::new(picker, index)))
    }

    /// The endpoints that may be picked now: not those that are ejected, in another zone or outside of
    /// the subset.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.state.refresh();
        self.state.picker.load().in_use()
    }

    // Always inlined, and the slow path shares no memory with the fast one. Otherwise the result is
    // returned through memory, written in two halves and read as a whole. That stalls the pipeline for
    // as long as the rest of a pick takes.
    #[inline(always)]
    fn choose(&self, key: Option<Key>) -> Result<Pick, Error> {
        let picker = self.state.picker.load();
        let index = match picker.choose_if_ready(key) {
            Some(index) => index,
            None => return self.choose_slow(picker, key).map_err(|error| *error),
        };
        self.metrics().picked();
        Ok(Pick::new(picker, index))
    }

    #[cold]
    fn choose_slow(
        &self,
        picker: Guard<Arc<PreparedPicker>>,
        key: Option<Key>,
    ) -> Result<Pick, Box<Error>> {
        if let Some(index) = picker.claim_trial() {
            self.metrics().picked();
            return Ok(Pick::trial(picker, index));
        }
        let picker = self.usable(picker).map_err(Box::new)?;
        let index = picker.choose(key).unwrap_or_default();
        self.metrics().picked();
        Ok(Pick::new(picker, index))
    }

    /// A picker with candidates.
    fn usable(
        &self,
        picker: Guard<Arc<PreparedPicker>>,
    ) -> Result<Guard<Arc<PreparedPicker>>, Error> {
        let usable = self.find_usable(picker);
        if let Err(error) = &usable
            // Before the first answer, the caller will wait for it.
            && self.watch().load().freshness().is_settled()
        {
            self.metrics().pick_failed(error);
        }
        usable
    }

    fn find_usable(
        &self,
        picker: Guard<Arc<PreparedPicker>>,
    ) -> Result<Guard<Arc<PreparedPicker>>, Error> {
        let picker = if picker.has_candidates() {
            picker
        } else {
            // It may be slightly older than the snapshot.
            self.state.refresh();
            self.state.picker.load()
        };
        if !picker.has_candidates() {
            return Err(match &self.state.options().selector {
                Some(selector) => picker.snapshot().why_none_matches(selector),
                None => picker.snapshot().why_not_usable(),
            });
        }
        if picker.expires() {
            picker.snapshot().usable()?;
        }
        Ok(picker)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.refresh.abort();
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("service", &self.service)
            .field("picker", &**self.state.picker.load())
            .finish_non_exhaustive()
    }
}
