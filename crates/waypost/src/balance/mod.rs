//! Choosing one endpoint of many: one room per strategy.
//!
//! A [`Balancer`] keeps a table of all that a pick needs, made from the service's current
//! [`Snapshot`]: the endpoints that take new work, their weights after zone preference, slow start
//! and the like, and what the [`Strategy`] prepared from these. A pick reads the table: it takes
//! no lock and allocates nothing. When the registry, an ejection or a slow start changes
//! something, a task of the balancer makes another table and swaps it in.

mod alias;
mod candidates;
mod consistent_hash;
mod core;
mod explain;
mod key;
mod lease;
mod least_connections;
mod named;
mod options;
mod owner;
mod p2c_peak_ewma;
mod random;
mod round_robin;
mod schedule;
mod smooth_weighted_round_robin;
mod table;
mod weighing;
mod weighted_random;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::Guard;
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub use candidates::Candidates;
pub use consistent_hash::ConsistentHash;
pub use explain::{ExplainedCheck, ExplainedEjection, ExplainedInstance, Explanation, WeightStep};
pub use key::Key;
pub use lease::Lease;
pub use least_connections::LeastConnections;
pub use named::strategy_named;
pub(crate) use named::{StrategyFactory, named};
pub use options::BalancerOptions;
pub use p2c_peak_ewma::P2cPeakEwma;
pub use random::Random;
pub use round_robin::RoundRobin;
pub use smooth_weighted_round_robin::SmoothWeightedRoundRobin;
pub use weighing::Fate;
pub use weighted_random::WeightedRandom;

use waypost_core::{Error, Instance, InstanceId, ServiceName};

use self::core::Core;
use self::lease::Timing;
use self::table::Table;
use crate::conduct::{BalanceCounters, BalanceEvents};
use crate::directory::{Directory, Feed, Pin};
use crate::snapshot::{Endpoint, Snapshot};

/// How one endpoint is chosen. A value belongs to one service and may keep state of its own.
///
/// ```
/// use waypost::{Candidates, Chooser, Strategy};
///
/// /// Always the endpoint of the greatest weight.
/// #[derive(Debug)]
/// struct Heaviest;
///
/// impl Strategy for Heaviest {
///     fn name(&self) -> &'static str {
///         "heaviest"
///     }
///
///     fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
///         let all = 0..candidates.len();
///         let heaviest = all.max_by(|&a, &b| candidates.weight(a).total_cmp(&candidates.weight(b)));
///         let heaviest = heaviest.unwrap_or_default();
///         Box::new(move |_, _| heaviest)
///     }
/// }
/// ```
pub trait Strategy: fmt::Debug + Send + Sync + 'static {
    /// Its name in configurations and reports, such as `round_robin`.
    fn name(&self) -> &'static str;

    /// The weight that an endpoint starts from: that in the registry unless said otherwise. 0 and
    /// what is no number leave it out.
    fn weight(&self, endpoint: &Endpoint) -> f64 {
        endpoint.weight()
    }

    /// Prepares a function that chooses. Called when something changes, never on a pick: whatever
    /// takes time belongs here, and what must outlive a change belongs to the strategy itself.
    ///
    /// If it panics, that is reported and the function prepared before stays in use.
    fn prepare(&self, candidates: &Candidates) -> Box<Chooser>;

    /// Whether it reads [`Endpoint::latency`]; only then leases read the clock. False unless said
    /// otherwise.
    fn measures_latency(&self) -> bool {
        false
    }
}

/// Gives the index of the candidate to use; one beyond the end counts from the start again. It
/// gets the candidates it was prepared for and the request's key, if it has one.
pub type Chooser = dyn Fn(&Candidates, Option<Key>) -> usize + Send + Sync;

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
/// let request = instance.lease();           // in flight until dropped
/// # assert_eq!(request.endpoint().in_flight(), 1);
/// request.succeeded();                      // or failed(), or rejected()
/// # Ok::<(), waypost::Error>(())
/// # }).unwrap();
/// ```
pub struct Balancer {
    directory: Directory,
    service: ServiceName,
    core: Arc<Core>,
    task: AbortHandle,
    /// Set for those who hold on to a balancer, so that its feed doesn't close when idle.
    _pin: Option<Pin<Snapshot>>,
}

impl Balancer {
    /// Follows the service as long as the balancer is held, with the default options.
    ///
    /// Must be called within a Tokio runtime.
    pub fn new(directory: &Directory, service: &ServiceName, strategy: Box<dyn Strategy>) -> Self {
        Self::with_options(directory, service, strategy, BalancerOptions::default())
    }

    /// As [`new`](Self::new), with other options.
    pub fn with_options(
        directory: &Directory,
        service: &ServiceName,
        strategy: Box<dyn Strategy>,
        options: BalancerOptions,
    ) -> Self {
        let mut balancer = Self::unpinned(directory, service, strategy, options);
        balancer._pin = Some(Pin::new(Arc::clone(balancer.feed())));
        balancer
    }

    /// As [`with_options`](Self::with_options), but the directory may drop the service when nobody
    /// asks for it.
    pub(crate) fn unpinned(
        directory: &Directory,
        service: &ServiceName,
        strategy: Box<dyn Strategy>,
        options: BalancerOptions,
    ) -> Self {
        let feed = directory.feed(service);
        // Before the first table is made, so that nothing told meanwhile is missed.
        let news = feed.subscribe();
        let ejections = feed.load().fleet().subscribe();
        let core = Core::new(feed, strategy.into(), options);
        let task = tokio::spawn(core::keep_up(Arc::downgrade(&core), news, ejections));
        Self {
            directory: directory.clone(),
            service: service.clone(),
            core,
            task: task.abort_handle(),
            _pin: None,
        }
    }

    fn feed(&self) -> &Arc<Feed<Snapshot>> {
        &self.core.feed
    }

    /// Whether its feed still runs; if not, another balancer is needed.
    pub(crate) fn is_live(&self) -> bool {
        self.feed().touch() && self.feed().is_running() && !self.task.is_finished()
    }

    /// Whether its feed was closed for want of readers.
    pub(crate) fn is_closed(&self) -> bool {
        self.feed().is_closed()
    }

    /// The service that it picks of.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The strategy that it picks by.
    pub fn strategy(&self) -> Arc<dyn Strategy> {
        Arc::clone(&self.core.table.load().strategy)
    }

    /// Picks by another strategy from now on. What is known of the endpoints stays: requests in
    /// flight, latencies, ejections.
    pub fn set_strategy(&self, strategy: Box<dyn Strategy>) {
        self.core.set_strategy(strategy.into());
    }

    /// Waits for the provider's first answer.
    ///
    /// # Errors
    /// As [`Directory::lookup`].
    pub async fn ready(&self) -> Result<Arc<Snapshot>, Error> {
        let snapshot = self.directory.settled(self.feed(), Some(&self.service));
        let snapshot = snapshot.await?;
        self.core.catch_up();
        Ok(snapshot)
    }

    /// What is known of the service now.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.feed().load()
    }

    /// What becomes of each instance, and why: for operators, not for each request.
    pub fn explain(&self) -> Explanation {
        self.core.catch_up();
        explain::explain(&self.core.table.load(), self.core.options())
    }

    /// The decisions made from now on: ejections, returns, panic.
    pub fn events(&self) -> BalanceEvents {
        BalanceEvents(self.core.fleet.events())
    }

    /// How often each kind of decision was made, for metrics.
    pub fn counters(&self) -> BalanceCounters {
        self.core.fleet.counters()
    }

    /// Chooses an endpoint.
    ///
    /// # Errors
    /// If there is none to choose: as [`Snapshot::usable`].
    #[inline]
    pub fn pick(&self) -> Result<Pick, Error> {
        self.choose(None)
    }

    /// Chooses the endpoint for a key, if the strategy looks at keys; else any.
    ///
    /// # Errors
    /// As [`pick`](Self::pick).
    pub fn pick_for(&self, key: Key) -> Result<Pick, Error> {
        self.choose(Some(key))
    }

    /// Chooses an endpoint other than those tried already; one of these only if there is no other.
    ///
    /// # Errors
    /// As [`pick`](Self::pick).
    pub fn pick_except(&self, tried: &[InstanceId]) -> Result<Pick, Error> {
        if tried.is_empty() {
            return self.pick();
        }
        let table = self.usable(self.core.table.load())?;
        let index = untried(&table, tried);
        Ok(Pick::of(table, index))
    }

    // Always inlined, and the slow way shares no memory with the quick one: else a pick is returned
    // through memory, written in halves and read as a whole, and stalls for as long as all the rest
    // of it takes.
    #[inline(always)]
    fn choose(&self, key: Option<Key>) -> Result<Pick, Error> {
        let table = self.core.table.load();
        let index = match &table.prepared {
            Some(prepared) if !table.needs_a_look => prepared.choose(key),
            _ => return self.choose_with_care(table, key).map_err(|error| *error),
        };
        Ok(Pick::of(table, index))
    }

    #[cold]
    fn choose_with_care(
        &self,
        table: Guard<Arc<Table>>,
        key: Option<Key>,
    ) -> Result<Pick, Box<Error>> {
        if let Some(index) = due_probe(&table) {
            let probe = true;
            return Ok(Pick {
                table,
                index,
                probe,
            });
        }
        let table = self.usable(table).map_err(Box::new)?;
        let index = table.prepared.as_ref().map(|prepared| prepared.choose(key));
        Ok(Pick::of(table, index.unwrap_or_default()))
    }

    /// A table from which an endpoint can be chosen.
    fn usable(&self, table: Guard<Arc<Table>>) -> Result<Guard<Arc<Table>>, Error> {
        let table = match table.prepared {
            Some(_) => table,
            // It may be a moment older than the snapshot, which is nothing to fail for.
            None => {
                self.core.catch_up();
                self.core.table.load()
            }
        };
        match table.prepared {
            None => Err(table.snapshot.why_not_usable()),
            Some(_) if table.expires => table.snapshot.usable().map(|_| ()),
            Some(_) => Ok(()),
        }?;
        Ok(table)
    }
}

/// An ejected endpoint whose time is over and that nobody is trying out now.
#[cold]
fn due_probe(table: &Table) -> Option<usize> {
    let first = table.prepared.as_ref()?.candidates.len();
    let now = Instant::now();
    let mut probing = (table.reserve..).zip(&table.others[table.reserve..]);
    probing
        .find(|(_, endpoint)| {
            let state = endpoint.state();
            state.conduct.claim_probe(state.fleet.millis(now))
        })
        .map(|(place, _)| first + place)
}

/// A place other than those of the tried, if there is one.
fn untried(table: &Table, tried: &[InstanceId]) -> usize {
    let Some(prepared) = &table.prepared else {
        return 0;
    };
    let count = prepared.candidates.len();
    let is_untried = |&index: &usize| !tried.contains(table.endpoint(index).instance().id());
    let first = prepared.choose(None);
    if is_untried(&first) {
        return first;
    }
    // Asking the strategy again spreads what a failed endpoint leaves over all others.
    let chosen = std::iter::repeat_with(|| prepared.choose(None));
    let chosen = chosen.take(4).find(is_untried);
    let neighbour = || {
        (1..count)
            .map(|step| (first + step) % count)
            .find(is_untried)
    };
    let reserve = || (count..count + table.reserve).find(is_untried);
    chosen.or_else(neighbour).or_else(reserve).unwrap_or(first)
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Debug for Balancer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("service", &self.service)
            .field("table", &**self.core.table.load())
            .finish_non_exhaustive()
    }
}

/// An endpoint that was chosen, still inside of the table that it was chosen from: no copy, no
/// count. Turn it into a [`Lease`] for as long as the work lasts.
pub struct Pick {
    table: Guard<Arc<Table>>,
    index: usize,
    probe: bool,
}

impl Pick {
    #[inline]
    fn of(table: Guard<Arc<Table>>, index: usize) -> Self {
        Self {
            table,
            index,
            probe: false,
        }
    }

    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.table.endpoint(self.index)
    }

    /// What it was chosen from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.table.snapshot
    }

    /// Counts the work as in flight until the lease is dropped.
    // Always inlined, for the reason that a pick is.
    #[inline(always)]
    pub fn lease(&self) -> Lease {
        let timing = match self.table.measures_latency {
            true => Timing::begin(self.table.snapshot.fleet()),
            false => Timing::Unwanted,
        };
        self.table.lease(self.index, timing, self.probe)
    }

    /// As [`lease`](Self::lease), for one who knows what time it is.
    #[inline(always)]
    pub fn lease_at(&self, now: Instant) -> Lease {
        let timing = match self.table.measures_latency {
            true => Timing::Since(now),
            false => Timing::Unwanted,
        };
        self.table.lease(self.index, timing, self.probe)
    }
}

impl Deref for Pick {
    type Target = Instance;

    #[inline]
    fn deref(&self) -> &Instance {
        self.endpoint().instance()
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(self.endpoint()).finish()
    }
}
