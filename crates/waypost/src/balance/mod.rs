//! Choosing one endpoint of many: one room per strategy.
//!
//! A [`Balancer`] reads the service's current [`Snapshot`] and lets its [`Strategy`] choose among
//! the endpoints that take new work. A pick is synchronous, takes no lock and allocates nothing.

mod random;
mod round_robin;

use std::{fmt, ops::Deref, sync::Arc};

use arc_swap::Guard;

pub use random::Random;
pub use round_robin::RoundRobin;

use crate::{
    directory::{Directory, Feed, Pin},
    error::Error,
    model::{Endpoint, Instance, InstanceId, Invalid, Lease, ServiceName, Snapshot},
};

/// How one endpoint is chosen. A value belongs to one service and may keep state of its own.
pub trait Strategy: fmt::Debug + Send + Sync + 'static {
    /// Its name in configurations and reports, such as `round_robin`.
    fn name(&self) -> &'static str;

    /// The index of the endpoint to use. `candidates` is never empty; an index beyond its end
    /// counts from the start again.
    fn choose(&self, candidates: &[Arc<Endpoint>]) -> usize;
}

/// Makes a strategy for each service.
pub(crate) type StrategyFactory = Arc<dyn Fn() -> Box<dyn Strategy> + Send + Sync>;

type Make = fn() -> Box<dyn Strategy>;

/// The strategies that a configuration can name.
const NAMED: &[(&str, Make)] = &[
    ("round_robin", || Box::new(RoundRobin::new())),
    ("random", || Box::new(Random::new())),
];

/// The factory of the strategy that a configuration names.
pub(crate) fn named(name: &str) -> Result<StrategyFactory, Invalid> {
    match NAMED.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => Ok(Arc::new(make)),
        None => {
            let known: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            let why = format!("use one of: {}", known.join(", "));
            Err(Invalid::new("load balancing strategy", name, why))
        }
    }
}

/// Picks endpoints of one service.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// # use waypost::{Instance, MemoryProvider, ServiceDiscoveryClient, ServiceName};
/// # let memory = MemoryProvider::new();
/// # memory.insert(Instance::builder(ServiceName::new("auth")?, "10.0.0.7".parse()?, 80).build()?);
/// # let client = ServiceDiscoveryClient::builder().provider(memory).build()?;
/// let balancer = client.balancer("auth")?;
/// balancer.ready().await?;                  // the first answer
/// let instance = balancer.pick()?;          // from memory
/// println!("ask {}", instance.url());
/// let in_flight = instance.lease();         // counted until dropped
/// # assert_eq!(in_flight.endpoint().in_flight(), 1);
/// # Ok::<(), waypost::Error>(())
/// # }).unwrap();
/// ```
pub struct Balancer {
    directory: Directory,
    service: ServiceName,
    feed: Arc<Feed<Snapshot>>,
    strategy: Box<dyn Strategy>,
    /// Set for those who hold on to a balancer, so that its feed doesn't close when idle.
    _pin: Option<Pin<Snapshot>>,
}

impl Balancer {
    /// Follows the service as long as the balancer is held.
    pub fn new(directory: &Directory, service: &ServiceName, strategy: Box<dyn Strategy>) -> Self {
        let mut balancer = Self::unpinned(directory, service, strategy);
        balancer._pin = Some(Pin::new(Arc::clone(&balancer.feed)));
        balancer
    }

    /// As [`new`](Self::new), but the directory may drop the service when nobody asks for it.
    pub(crate) fn unpinned(
        directory: &Directory,
        service: &ServiceName,
        strategy: Box<dyn Strategy>,
    ) -> Self {
        Self {
            directory: directory.clone(),
            service: service.clone(),
            feed: directory.feed(service),
            strategy,
            _pin: None,
        }
    }

    /// Whether its feed still runs; if not, another balancer is needed.
    pub(crate) fn is_live(&self) -> bool {
        self.feed.touch() && self.feed.is_running()
    }

    /// Whether its feed was closed for want of readers.
    pub(crate) fn is_closed(&self) -> bool {
        self.feed.is_closed()
    }

    /// The service that it picks of.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The strategy that it picks by.
    pub fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }

    /// Waits for the provider's first answer.
    ///
    /// # Errors
    /// As [`Directory::lookup`].
    pub async fn ready(&self) -> Result<Arc<Snapshot>, Error> {
        self.directory
            .settled(&self.feed, Some(&self.service))
            .await
    }

    /// What is known of the service now.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.feed.load()
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    /// If there is none to choose: as [`Snapshot::usable`].
    #[inline]
    pub fn pick(&self) -> Result<Pick, Error> {
        let snapshot = self.feed.load();
        let candidates = snapshot.usable()?;
        let index = self.strategy.choose(candidates) % candidates.len();
        Ok(Pick { snapshot, index })
    }

    /// Chooses an endpoint other than those tried already; one of these only if there is no other.
    ///
    /// # Errors
    /// As [`pick`](Self::pick).
    pub fn pick_except(&self, tried: &[InstanceId]) -> Result<Pick, Error> {
        let mut pick = self.pick()?;
        let candidates = pick.snapshot.ready();
        let first = pick.index;
        let untried = (0..candidates.len())
            .map(|step| (first + step) % candidates.len())
            .find(|&index| !tried.contains(candidates[index].instance().id()));
        pick.index = untried.unwrap_or(first);
        Ok(pick)
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("service", &self.service)
            .field("strategy", &self.strategy)
            .finish_non_exhaustive()
    }
}

/// An endpoint that was chosen, still inside of the snapshot that it was chosen from: no copy, no
/// count. Turn it into a [`Lease`] for as long as the work lasts.
pub struct Pick {
    snapshot: Guard<Arc<Snapshot>>,
    index: usize,
}

impl Pick {
    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        // The index was taken modulo the length of this very list, which never changes.
        &self.snapshot.ready()[self.index]
    }

    /// What it was chosen from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Counts the work as in flight until the lease is dropped.
    pub fn lease(&self) -> Lease {
        Lease::new(Arc::clone(self.endpoint()))
    }
}

impl Deref for Pick {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        self.endpoint().instance()
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(self.endpoint()).finish()
    }
}
