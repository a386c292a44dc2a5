//! Everything that a pick needs, prepared in advance.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;
use waypost_core::Instance;

use super::held::{HeldEndpoint, PerCoreLists};
use super::lease::Timing;
use super::weighing::{Selection, Weighed, weigh};
use super::{BalancerOptions, Candidates, Chooser, Key, Lease, Strategy};
use crate::endpoint::{CountedBy, Endpoint};
use crate::snapshot::Snapshot;

/// The candidates of one snapshot with their weights, and the strategy's prepared choice among them.
/// It is immutable and is replaced when something changes.
///
/// Endpoints are numbered: the candidates first, then the reserve, then those due for a trial.
pub(crate) struct PreparedPicker {
    snapshot: Arc<Snapshot>,
    pub(crate) strategy: Arc<dyn Strategy>,
    /// `None` if there is nothing to choose from.
    prepared: Option<Prepared>,
    /// The reserve (healthy endpoints in other zones or outside the subset), then the endpoints
    /// whose ejection has expired.
    others: Box<[Arc<Endpoint>]>,
    /// How many of `others` are the reserve.
    reserve: usize,
    /// Whether a pick can't simply use `prepared`: a trial is due, or the snapshot may expire.
    needs_check: bool,
    /// Whether the snapshot may become too old to be used.
    expires: bool,
    /// Whether ejections are ignored.
    pub(crate) panic: bool,
    pub(crate) healthy: usize,
    pub(crate) known: usize,
    /// The message, if the strategy's weight function panicked and the registry's weights are used.
    pub(crate) weights_panicked: Option<Arc<str>>,
    /// When another picker must be prepared although nothing has changed.
    pub(crate) refresh_at: Option<Instant>,
}

struct Prepared {
    candidates: Candidates,
    lists: PerCoreLists,
    chooser: Box<Chooser>,
}

impl Prepared {
    /// The index of a candidate.
    #[inline]
    fn choose(&self, key: Option<Key>) -> usize {
        let index = (self.chooser)(&self.candidates, key);
        let count = self.candidates.len();
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

impl PreparedPicker {
    /// A picker that has nothing to choose from.
    pub(crate) fn empty(snapshot: Arc<Snapshot>, strategy: Arc<dyn Strategy>) -> Self {
        Self {
            snapshot,
            strategy,
            prepared: None,
            others: Box::default(),
            reserve: 0,
            needs_check: true,
            expires: false,
            panic: false,
            healthy: 0,
            known: 0,
            weights_panicked: None,
            refresh_at: None,
        }
    }

    pub(crate) fn new(
        snapshot: Arc<Snapshot>,
        strategy: Arc<dyn Strategy>,
        options: &BalancerOptions,
        now: Instant,
    ) -> Self {
        let weighed = weigh(&snapshot, &*strategy, options, now, |_, _| ());
        let is_reserve = |s| matches!(s, Selection::OtherZone | Selection::OutsideSubset);
        let mut others: Vec<_> = selected(&snapshot, &weighed, is_reserve).collect();
        let reserve = others.len();
        others.extend(selected(&snapshot, &weighed, |s| s == Selection::Probing));
        let prepared = candidates(&snapshot, &weighed).map(|candidates| Prepared {
            chooser: strategy.prepare(&candidates),
            lists: PerCoreLists::new(candidates.endpoints_shared()),
            candidates,
        });
        let expires = snapshot.freshness().expires();
        Self {
            needs_check: expires || others.len() > reserve,
            expires,
            prepared,
            others: others.into(),
            reserve,
            panic: weighed.panic,
            healthy: weighed.healthy,
            known: weighed.known,
            weights_panicked: weighed.panicked,
            refresh_at: weighed.next_change,
            snapshot,
            strategy,
        }
    }

    /// The snapshot that this picker was prepared from.
    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// Whether there is anything to choose from.
    pub(crate) fn has_candidates(&self) -> bool {
        self.prepared.is_some()
    }

    /// How many candidates there are.
    #[cfg(any(feature = "reqwest", feature = "tower"))]
    pub(crate) fn candidate_count(&self) -> usize {
        (self.prepared.as_ref()).map_or(0, |prepared| prepared.candidates.len())
    }

    /// Whether the snapshot may become too old to be used.
    pub(crate) fn expires(&self) -> bool {
        self.expires
    }

    /// The index of a candidate; `None` if there is none, or if a pick needs more checks.
    #[inline(always)]
    pub(crate) fn choose_if_ready(&self, key: Option<Key>) -> Option<usize> {
        match &self.prepared {
            Some(prepared) if !self.needs_check => Some(prepared.choose(key)),
            _ => None,
        }
    }

    /// The index of a candidate; `None` if there is none.
    pub(crate) fn choose(&self, key: Option<Key>) -> Option<usize> {
        self.prepared.as_ref().map(|prepared| prepared.choose(key))
    }

    /// The index of an endpoint whose instance is accepted, from the candidates or else from the
    /// reserve; `None` if there is none.
    pub(crate) fn choose_where(&self, accept: impl Fn(&Instance) -> bool) -> Option<usize> {
        let prepared = self.prepared.as_ref()?;
        let count = prepared.candidates.len();
        let is_accepted = |&index: &usize| accept(self.endpoint(index).instance());
        // Usually the strategy soon chooses an accepted one. That follows its order and considers load.
        let chosen = std::iter::repeat_with(|| prepared.choose(None));
        if let Some(index) = chosen.take(5).find(is_accepted) {
            return Some(index);
        }
        // Only a few endpoints are accepted: choose one of them at random, by weight.
        let accepted: Vec<usize> = (0..count).filter(is_accepted).collect();
        let weight = |index: &usize| prepared.candidates.weight(*index);
        let mut left = accepted.iter().map(weight).sum::<f64>() * fastrand::f64();
        let mut drawn = accepted.iter().skip_while(|index| {
            left -= weight(index);
            left > 0.0
        });
        let candidate = drawn.next().or(accepted.last()).copied();
        candidate.or_else(|| (count..count + self.reserve).find(is_accepted))
    }

    /// The endpoints whose connections are kept open: the candidates, and those due for a trial.
    pub(crate) fn in_use(&self) -> Vec<Arc<Endpoint>> {
        let candidates = self.prepared.as_ref();
        let candidates = candidates.map_or(&[][..], |prepared| prepared.candidates.endpoints());
        let trials = &self.others[self.reserve..];
        candidates.iter().chain(trials).cloned().collect()
    }

    /// The index of an endpoint whose ejection has expired, if none of its trials is under way.
    #[cold]
    pub(crate) fn claim_trial(&self) -> Option<usize> {
        let first = self.prepared.as_ref()?.candidates.len();
        let now = Instant::now();
        let mut half_open = (self.reserve..).zip(&self.others[self.reserve..]);
        half_open
            .find(|(_, endpoint)| {
                let state = endpoint.state();
                state.ejection.claim_trial(state.group.clock.millis(now))
            })
            .map(|(index, _)| first + index)
    }

    /// The endpoint with this index.
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

    /// A lease on the endpoint with this index.
    #[inline(always)]
    pub(crate) fn lease(&self, index: usize, timing: Timing, is_trial: bool) -> Lease {
        let prepared = self.prepared.as_ref();
        let counted_by = match prepared {
            Some(prepared) if prepared.candidates.are_few() => CountedBy::Shared,
            _ => CountedBy::this_core(),
        };
        let endpoint = self.endpoint(index);
        endpoint.begin(counted_by);
        endpoint.state().group.metrics.request_started();
        let held = prepared.and_then(|prepared| prepared.lists.hold(index));
        let held = held.unwrap_or_else(|| HeldEndpoint::Own(Arc::clone(endpoint)));
        Lease::new(held, counted_by, timing, is_trial)
    }
}

fn candidates(snapshot: &Snapshot, weighed: &Weighed) -> Option<Candidates> {
    let used = weighed.selections.iter();
    let used = used
        .filter(|selection| **selection == Selection::Used)
        .count();
    if used == 0 {
        return None;
    }
    // All used endpoints are ready, so an equal number means the same list: no copy is needed.
    let all_selected = !weighed.selections.contains(&Selection::NotSelected);
    let endpoints = if all_selected && used == snapshot.ready().len() {
        snapshot.ready_shared()
    } else {
        selected(snapshot, weighed, |s| s == Selection::Used).collect()
    };
    let weights = weighed.weights.iter().zip(&weighed.selections);
    let weights = weights.filter_map(|(weight, s)| (*s == Selection::Used).then_some(*weight));
    Some(Candidates::new(endpoints, weights.collect()))
}

fn selected<'a>(
    snapshot: &'a Snapshot,
    weighed: &'a Weighed,
    wanted: impl Fn(Selection) -> bool + 'a,
) -> impl Iterator<Item = Arc<Endpoint>> + 'a {
    let all = snapshot.endpoints().iter().zip(&weighed.selections);
    all.filter(move |(_, selection)| wanted(**selection))
        .map(|(endpoint, _)| Arc::clone(endpoint))
}

impl fmt::Debug for PreparedPicker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PreparedPicker")
            .field("strategy", &self.strategy)
            .field("healthy", &self.healthy)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}
