//! Computes the weights that a strategy works with from those in the registry, step by step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde::Serialize;
use tokio::time::{Duration, Instant};

use super::key::hash;
use super::options::{Subset, SubsetClient};
use super::panic_message;
use super::{BalancerOptions, Strategy};
use crate::endpoint::{Endpoint, RegistryState};
use crate::outlier::EjectionStatus;
use crate::snapshot::Snapshot;

/// Whether an instance is picked, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Selection {
    /// Picked, in proportion to its weight.
    Used,
    /// Not picked: the [selector](crate::Selector) doesn't accept it.
    NotSelected,
    /// Not picked: it fails its checks.
    Critical,
    /// Not picked: it is shutting down.
    Draining,
    /// Not picked: its weight is 0.
    Drained,
    /// Not picked: outlier detection ejected it.
    Ejected,
    /// Its ejection has expired: it gets one trial request at a time.
    Probing,
    /// Not picked: the client's own zone has enough capacity.
    OtherZone,
    /// Not picked: it is outside of the client's subset.
    OutsideSubset,
}

/// With up to this many endpoints, one healthy endpoint is enough to avoid panic mode. Otherwise, if one
/// of three has died and another hangs, panic mode would send requests to these two again.
const SMALL: usize = 3;

/// Services with fewer endpoints are not split into subsets.
const SUBSET_FROM: usize = 100;

/// How much more than its share a zone is expected to carry; Envoy's overprovisioning factor.
const OVERPROVISIONING: f64 = 1.4;

/// The share of its weight that an endpoint starts with in slow start.
const COLD: f64 = 0.1;

/// The number of steps in which it grows from there.
const RAMP_STEPS: u32 = 20;

pub(crate) struct Weighed {
    /// By index in the snapshot.
    pub(crate) selections: Vec<Selection>,
    /// By index in the snapshot; 0 for endpoints that aren't used.
    pub(crate) weights: Vec<f64>,
    /// How many endpoints are healthy and not ejected.
    pub(crate) healthy: usize,
    /// How many endpoints there are, except drained and draining ones.
    pub(crate) known: usize,
    /// Whether ejections are ignored.
    pub(crate) panic: bool,
    /// The message, if the strategy's weight function panicked.
    pub(crate) panicked: Option<Arc<str>>,
    /// When the weights change by the passing of time alone.
    pub(crate) next_change: Option<Instant>,
}

/// Computes the weights of all endpoints of a snapshot. `step` is called with the weights after each
/// step.
pub(crate) fn weigh(
    snapshot: &Snapshot,
    strategy: &dyn Strategy,
    options: &BalancerOptions,
    now: Instant,
    mut step: impl FnMut(&'static str, &[f64]),
) -> Weighed {
    let endpoints = snapshot.endpoints();
    let (mut weighed, base) = by_registry(snapshot, strategy, options);
    step("registry", &weighed.weights);
    if snapshot.group().detector.has_ejected() {
        weighed.eject(endpoints, options, now);
        step("outlier_detection", &weighed.weights);
    }
    if let Some(window) = options.slow_start {
        weighed.slow_start(endpoints, window, now);
        step("slow_start", &weighed.weights);
    }
    if let Some(zone) = &options.zone {
        weighed.prefer_zone(endpoints, &base, zone);
        step("zone", &weighed.weights);
    }
    if let Some(subset) = options.subset {
        weighed.take_subset(endpoints, subset);
        step("subset", &weighed.weights);
    }
    weighed
}

/// The weights from registry and strategy: first of the endpoints in use, then of all.
fn by_registry(
    snapshot: &Snapshot,
    strategy: &dyn Strategy,
    options: &BalancerOptions,
) -> (Weighed, Vec<f64>) {
    let endpoints = snapshot.endpoints();
    let weights = || {
        let weights = endpoints.iter().map(|endpoint| strategy.weight(endpoint));
        weights.map(valid_weight).collect()
    };
    // The weight function may be the application's. If it panics, the registry's weights are used.
    let (base, panicked): (Vec<f64>, _) = match catch_unwind(AssertUnwindSafe(weights)) {
        Ok(weights) => (weights, None),
        Err(panic) => {
            let weights = endpoints.iter().map(|endpoint| endpoint.weight());
            (weights.collect(), Some(panic_message(&*panic)))
        }
    };
    let selection = |(endpoint, weight): (&Arc<Endpoint>, &f64)| match endpoint.registry_state() {
        _ if !options.selects(endpoint.instance()) => Selection::NotSelected,
        RegistryState::Critical => Selection::Critical,
        RegistryState::Draining => Selection::Draining,
        RegistryState::Ready if *weight > 0.0 => Selection::Used,
        RegistryState::Ready | RegistryState::Drained => Selection::Drained,
    };
    let mut selections: Vec<Selection> = endpoints.iter().zip(&base).map(selection).collect();
    let mut weights = base.clone();
    if !selections.contains(&Selection::Used) {
        // Drained or draining endpoints are used if there are no others.
        let selected = |selection: &Selection| *selection != Selection::NotSelected;
        let states = endpoints.iter().zip(&selections);
        let states = states
            .filter(|(_, s)| selected(s))
            .map(|(e, _)| e.registry_state());
        let best = states
            .min()
            .filter(|state| *state != RegistryState::Critical);
        for (index, endpoint) in endpoints.iter().enumerate() {
            if selected(&selections[index]) && Some(endpoint.registry_state()) == best {
                (selections[index], weights[index]) = (Selection::Used, 1.0);
            }
        }
    }
    let (mut healthy, mut known) = (0, 0);
    for (selection, weight) in selections.iter().zip(&mut weights) {
        match selection {
            Selection::Used => (healthy, known) = (healthy + 1, known + 1),
            Selection::Critical => (known, *weight) = (known + 1, 0.0),
            _ => *weight = 0.0,
        }
    }
    let weighed = Weighed {
        selections,
        weights,
        healthy,
        known,
        panic: false,
        panicked,
        next_change: None,
    };
    (weighed, base)
}

/// A weight computed by the application may be invalid; then it counts as 0.
fn valid_weight(weight: f64) -> f64 {
    if weight.is_finite() && weight > 0.0 {
        weight.clamp(1e-6, 1e9)
    } else {
        0.0
    }
}

impl Weighed {
    fn exclude(&mut self, index: usize, reason: Selection) {
        self.selections[index] = reason;
        self.weights[index] = 0.0;
    }

    fn used(&self) -> impl Iterator<Item = usize> {
        let selections = self.selections.iter().enumerate();
        selections.filter_map(|(index, s)| (*s == Selection::Used).then_some(index))
    }

    fn change_at(&mut self, at: Instant) {
        self.next_change = Some(self.next_change.map_or(at, |next| next.min(at)));
    }

    fn eject(&mut self, endpoints: &[Arc<Endpoint>], options: &BalancerOptions, now: Instant) {
        let mut out = Vec::new();
        for index in self.used() {
            let endpoint = &endpoints[index];
            match endpoint.view(now).status() {
                EjectionStatus::Active => {}
                EjectionStatus::Ejected(until) => {
                    let clock = &endpoint.state().group.clock;
                    let until = until.map(|until| clock.instant(until));
                    out.push((index, Selection::Ejected, until));
                }
                EjectionStatus::HalfOpen => out.push((index, Selection::Probing, None)),
            }
        }
        self.healthy -= out.len();
        let min_healthy = options.panic_threshold * self.known as f64;
        let too_few = self.known > SMALL && (self.healthy as f64) < min_healthy;
        self.panic = self.healthy == 0 || too_few;
        for (index, reason, until) in out {
            if let Some(until) = until {
                self.change_at(until);
            }
            if !self.panic {
                self.exclude(index, reason);
            }
        }
    }

    fn slow_start(&mut self, endpoints: &[Arc<Endpoint>], window: Duration, now: Instant) {
        for (index, endpoint) in endpoints.iter().enumerate() {
            if let Some(age) = endpoint.ready_for(now).filter(|age| *age < window) {
                let grown = age.as_secs_f64() / window.as_secs_f64();
                self.weights[index] *= grown.max(COLD);
                self.change_at(now + (window / RAMP_STEPS).max(Duration::from_millis(50)));
            }
        }
    }

    fn prefer_zone(&mut self, endpoints: &[Arc<Endpoint>], base: &[f64], zone: &str) {
        let in_zone = |index: usize| endpoints[index].instance().zone() == Some(zone);
        let local: f64 = self
            .used()
            .filter(|&i| in_zone(i))
            .map(|i| self.weights[i])
            .sum();
        let other: f64 = self
            .used()
            .filter(|&i| !in_zone(i))
            .map(|i| self.weights[i])
            .sum();
        if local == 0.0 || other == 0.0 {
            return;
        }
        // The weight of an average zone if all registered endpoints were healthy.
        let mut zones: Vec<Option<&str>> = Vec::new();
        let mut registered = 0.0;
        for (index, (endpoint, weight)) in endpoints.iter().zip(base).enumerate() {
            if self.selections[index] == Selection::NotSelected {
                continue;
            }
            let zone = endpoint.instance().zone();
            if !zones.contains(&zone) {
                zones.push(zone);
            }
            registered += weight;
        }
        let average = registered / zones.len() as f64;
        let share = (OVERPROVISIONING * local / average).min(1.0);
        for index in self.used().collect::<Vec<_>>() {
            if in_zone(index) {
                self.weights[index] *= share * (local + other) / local;
            } else if share == 1.0 {
                self.exclude(index, Selection::OtherZone);
            } else {
                self.weights[index] *= (1.0 - share) * (local + other) / other;
            }
        }
    }

    fn take_subset(&mut self, endpoints: &[Arc<Endpoint>], subset: Subset) {
        let used: Vec<usize> = self.used().collect();
        let (count, size) = (used.len(), subset.size);
        if count < SUBSET_FROM || count <= size {
            return;
        }
        // The position in the ranking where the subset begins, and the seed of the ranking.
        let (seed, start) = match subset.client {
            SubsetClient::Named(client) => (client, 0),
            SubsetClient::Numbered(client) => {
                // The clients of a round have adjacent parts of the same ranking. The endpoints that the
                // last one leaves over have other positions in the ranking of the next round.
                let subsets = count / size;
                let (round, position) = (client / subsets, client % subsets);
                (hash(3, &round.to_le_bytes()), position * size)
            }
        };
        let mut ranked: Vec<(u64, usize)> = used
            .into_iter()
            .map(|index| {
                let id = endpoints[index].instance().id().as_str();
                (hash(seed, id.as_bytes()), index)
            })
            .collect();
        ranked.sort_unstable();
        for (rank, (_, index)) in ranked.into_iter().enumerate() {
            if !(start..start + size).contains(&rank) {
                self.exclude(index, Selection::OutsideSubset);
            }
        }
    }
}
