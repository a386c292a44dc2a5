use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use super::lease::Timing;
use super::owner::{Holds, Owner};
use super::weighing::{Fate, Weighed, weigh};
use super::{BalancerOptions, Candidates, Chooser, Key, Lease, Strategy};
use crate::conduct::CountedBy;
use crate::snapshot::{Endpoint, Snapshot};

/// All that a pick needs, prepared: what there is to choose among, and how. It never changes;
/// another one takes its place.
pub(crate) struct Table {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) strategy: Arc<dyn Strategy>,
    /// `None` if there is nothing to choose.
    pub(crate) prepared: Option<Prepared>,
    /// First those that are well but left out for their place; they serve as a reserve.
    pub(crate) others: Box<[Arc<Endpoint>]>,
    /// How many of these there are. After them come the ejected whose time is over.
    pub(crate) reserve: usize,
    /// Whether a pick has to look at more than what is prepared: probes, or the answer's age.
    pub(crate) needs_a_look: bool,
    pub(crate) measures_latency: bool,
    /// Whether the answer may become too old to be used.
    pub(crate) expires: bool,
    pub(crate) panic: bool,
    pub(crate) healthy: usize,
    pub(crate) known: usize,
    /// When another one is due, even if nothing is heard.
    pub(crate) next: Option<Instant>,
}

pub(crate) struct Prepared {
    pub(crate) candidates: Candidates,
    holds: Holds,
    choose: Box<Chooser>,
}

impl Prepared {
    /// The place of a candidate.
    #[inline]
    pub(crate) fn choose(&self, key: Option<Key>) -> usize {
        let (index, count) = ((self.choose)(&self.candidates, key), self.candidates.len());
        if index < count {
            index
        } else {
            wrapped(index, count)
        }
    }
}

#[cold]
fn wrapped(index: usize, count: usize) -> usize {
    index % count
}

impl Table {
    /// One without anything to choose.
    pub(crate) fn empty(snapshot: Arc<Snapshot>, strategy: Arc<dyn Strategy>) -> Self {
        Self {
            snapshot,
            strategy,
            prepared: None,
            others: Box::default(),
            reserve: 0,
            needs_a_look: true,
            measures_latency: false,
            expires: false,
            panic: false,
            healthy: 0,
            known: 0,
            next: None,
        }
    }

    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        strategy: Arc<dyn Strategy>,
        options: &BalancerOptions,
        now: Instant,
    ) -> Self {
        let weighed = weigh(&snapshot, &*strategy, options, now, |_, _| ());
        let (mut others, probing) = others(&snapshot, &weighed);
        let reserve = others.len();
        others.extend(probing);
        let prepared = candidates(&snapshot, &weighed).map(|candidates| Prepared {
            choose: strategy.prepare(&candidates),
            holds: Holds::on(candidates.endpoints_shared()),
            candidates,
        });
        let expires = snapshot.freshness().expires();
        Self {
            needs_a_look: expires || others.len() > reserve,
            expires,
            prepared,
            others: others.into(),
            reserve,
            measures_latency: strategy.measures_latency(),
            panic: weighed.panic,
            healthy: weighed.healthy,
            known: weighed.known,
            next: weighed.next,
            snapshot,
            strategy,
        }
    }

    /// The endpoint at a place: candidates first, then the others.
    #[inline]
    pub(crate) fn endpoint(&self, index: usize) -> &Arc<Endpoint> {
        match &self.prepared {
            Some(prepared) => match prepared.candidates.endpoints().get(index) {
                Some(endpoint) => endpoint,
                None => &self.others[index - prepared.candidates.len()],
            },
            None => &self.others[index],
        }
    }

    /// A lease on the endpoint at a place.
    #[inline(always)]
    pub(crate) fn lease(&self, index: usize, timing: Timing, probe: bool) -> Lease {
        let prepared = self.prepared.as_ref();
        let counted_by = match prepared {
            Some(prepared) if !prepared.candidates.counts_exactly() => CountedBy::this_core(),
            _ => CountedBy::All,
        };
        let endpoint = self.endpoint(index);
        endpoint.begin(counted_by);
        let owner = prepared.and_then(|prepared| prepared.holds.own(index));
        let owner = owner.unwrap_or_else(|| Owner::OfEndpoint(Arc::clone(endpoint)));
        Lease::new(owner, counted_by, timing, probe)
    }
}

fn candidates(snapshot: &Snapshot, weighed: &Weighed) -> Option<Candidates> {
    let used = weighed.fates.iter().filter(|fate| **fate == Fate::Used);
    let used = used.count();
    if used == 0 {
        return None;
    }
    // Whoever is used is ready; so the same number means the same ones, and nothing is copied.
    let endpoints = match used == snapshot.ready().len() {
        true => snapshot.ready_shared(),
        false => pick_fate(snapshot, weighed, |fate| fate == Fate::Used).collect(),
    };
    let weights = weighed.weights.iter().zip(&weighed.fates);
    let weights = weights.filter_map(|(w, fate)| (*fate == Fate::Used).then_some(*w));
    Some(Candidates::new(endpoints, weights.collect()))
}

type Endpoints = Vec<Arc<Endpoint>>;

fn others(snapshot: &Snapshot, weighed: &Weighed) -> (Endpoints, Endpoints) {
    let reserve = |fate| matches!(fate, Fate::OtherZone | Fate::OutsideSubset);
    (
        pick_fate(snapshot, weighed, reserve).collect(),
        pick_fate(snapshot, weighed, |fate| fate == Fate::Probing).collect(),
    )
}

fn pick_fate<'a>(
    snapshot: &'a Snapshot,
    weighed: &'a Weighed,
    wanted: impl Fn(Fate) -> bool + 'a,
) -> impl Iterator<Item = Arc<Endpoint>> + 'a {
    let all = snapshot.endpoints().iter().zip(&weighed.fates);
    all.filter(move |(_, fate)| wanted(**fate))
        .map(|(endpoint, _)| Arc::clone(endpoint))
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("strategy", &self.strategy)
            .field("healthy", &self.healthy)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}
