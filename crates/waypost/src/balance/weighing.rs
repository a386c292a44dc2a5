//! From what the registry says to the weights that a strategy works with, one step after another.

use std::sync::Arc;

use serde::Serialize;
use tokio::time::{Duration, Instant};

use super::key::hash;
use super::options::Subset;
use super::{BalancerOptions, Strategy};
use crate::conduct::Status;
use crate::snapshot::{Endpoint, Snapshot, Standing};

/// What became of an instance on its way to being picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fate {
    /// It is picked, in proportion to its weight.
    Used,
    /// It fails its checks.
    Critical,
    /// It is on its way out.
    Draining,
    /// Its weight is 0.
    Drained,
    /// Its own conduct ejected it.
    Ejected,
    /// Its ejection is over; one request at a time is sent to see whether it is well.
    Probing,
    /// Our own zone has capacity enough.
    OtherZone,
    /// Other clients use it.
    OutsideSubset,
}

/// Among so few one that is well is enough: if one died and another hangs, requests had better not
/// go to these again.
const SMALL: usize = 3;

/// Smaller fleets are used by each client as a whole.
const SUBSET_FROM: usize = 100;

/// How much more than its fair share a zone is trusted to carry, as in Envoy.
const OVERPROVISIONING: f64 = 1.4;

/// What an endpoint begins with in slow start.
const COLD: f64 = 0.1;

/// In how many steps it grows from there.
const RAMP_STEPS: u32 = 20;

pub(crate) struct Weighed {
    /// By the place in the snapshot.
    pub(crate) fates: Vec<Fate>,
    /// By the same; 0 for those that aren't used.
    pub(crate) weights: Vec<f64>,
    /// How many are healthy and not ejected, and of how many.
    pub(crate) healthy: usize,
    pub(crate) known: usize,
    /// Whether ejections are disregarded.
    pub(crate) panic: bool,
    /// When weights change by themselves.
    pub(crate) next: Option<Instant>,
}

/// Weighs all endpoints of a snapshot. `step` hears of the weights after each transform.
pub(crate) fn weigh(
    snapshot: &Snapshot,
    strategy: &dyn Strategy,
    options: &BalancerOptions,
    now: Instant,
    mut step: impl FnMut(&'static str, &[f64]),
) -> Weighed {
    let endpoints = snapshot.endpoints();
    let (mut weighed, base) = by_registry(snapshot, strategy);
    step("registry", &weighed.weights);
    if snapshot.fleet().has_ejected() {
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

/// The weights by registry and strategy, first of those in use and then of all.
fn by_registry(snapshot: &Snapshot, strategy: &dyn Strategy) -> (Weighed, Vec<f64>) {
    let endpoints = snapshot.endpoints();
    let base: Vec<f64> = endpoints
        .iter()
        .map(|endpoint| sane(strategy.weight(endpoint)))
        .collect();
    let fate = |(endpoint, weight): (&Arc<Endpoint>, &f64)| match endpoint.standing() {
        Standing::Critical => Fate::Critical,
        Standing::Draining => Fate::Draining,
        Standing::Ready if *weight > 0.0 => Fate::Used,
        Standing::Ready | Standing::Drained => Fate::Drained,
    };
    let mut fates: Vec<Fate> = endpoints.iter().zip(&base).map(fate).collect();
    let mut weights = base.clone();
    if !fates.contains(&Fate::Used)
        && let Some(best) = snapshot.ready().first()
    {
        // Those that are drained or draining, since there is nothing better.
        for (index, endpoint) in endpoints.iter().enumerate() {
            if endpoint.standing() == best.standing() {
                (fates[index], weights[index]) = (Fate::Used, 1.0);
            }
        }
    }
    let (mut healthy, mut known) = (0, 0);
    for (fate, weight) in fates.iter().zip(&mut weights) {
        match fate {
            Fate::Used => (healthy, known) = (healthy + 1, known + 1),
            Fate::Critical => (known, *weight) = (known + 1, 0.0),
            _ => *weight = 0.0,
        }
    }
    let weighed = Weighed {
        fates,
        weights,
        healthy,
        known,
        panic: false,
        next: None,
    };
    (weighed, base)
}

/// A strategy's weight may come from an application's arithmetic. What is no weight counts as 0.
fn sane(weight: f64) -> f64 {
    match weight.is_finite() && weight > 0.0 {
        true => weight.clamp(1e-6, 1e9),
        false => 0.0,
    }
}

impl Weighed {
    fn drop(&mut self, index: usize, fate: Fate) {
        self.fates[index] = fate;
        self.weights[index] = 0.0;
    }

    fn used(&self) -> impl Iterator<Item = usize> {
        let fates = self.fates.iter().enumerate();
        fates.filter_map(|(index, fate)| (*fate == Fate::Used).then_some(index))
    }

    fn change_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    fn eject(&mut self, endpoints: &[Arc<Endpoint>], options: &BalancerOptions, now: Instant) {
        let mut out = Vec::new();
        for index in self.used() {
            let state = endpoints[index].state();
            match state.conduct.status(state.fleet.millis(now)) {
                Status::Active => {}
                Status::Ejected(until) => {
                    let until = until.map(|until| state.fleet.instant(until));
                    out.push((index, Fate::Ejected, until));
                }
                Status::HalfOpen => out.push((index, Fate::Probing, None)),
            }
        }
        self.healthy -= out.len();
        let fewest = options.panic_threshold * self.known as f64;
        let too_few = self.known > SMALL && (self.healthy as f64) < fewest;
        self.panic = self.healthy == 0 || too_few;
        for (index, fate, until) in out {
            if let Some(until) = until {
                self.change_at(until);
            }
            if !self.panic {
                self.drop(index, fate);
            }
        }
    }

    fn slow_start(&mut self, endpoints: &[Arc<Endpoint>], window: Duration, now: Instant) {
        for (index, endpoint) in endpoints.iter().enumerate() {
            if let Some(age) = endpoint.state().age(now).filter(|age| *age < window) {
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
        // An average zone, were all that the registry knows of it well.
        let mut zones: Vec<Option<&str>> = Vec::new();
        let mut registered = 0.0;
        for (endpoint, weight) in endpoints.iter().zip(base) {
            let zone = endpoint.instance().zone();
            if !zones.contains(&zone) {
                zones.push(zone);
            }
            registered += weight;
        }
        let fair = registered / zones.len() as f64;
        let share = (OVERPROVISIONING * local / fair).min(1.0);
        for index in self.used().collect::<Vec<_>>() {
            match in_zone(index) {
                true => self.weights[index] *= share * (local + other) / local,
                false if share == 1.0 => self.drop(index, Fate::OtherZone),
                false => self.weights[index] *= (1.0 - share) * (local + other) / other,
            }
        }
    }

    fn take_subset(&mut self, endpoints: &[Arc<Endpoint>], subset: Subset) {
        let mut ranked: Vec<(u64, usize)> = self
            .used()
            .map(|index| {
                let id = endpoints[index].instance().id().as_str();
                (hash(subset.client, id.as_bytes()), index)
            })
            .collect();
        if ranked.len() < SUBSET_FROM || ranked.len() <= subset.size {
            return;
        }
        let (_, _, outside) = ranked.select_nth_unstable(subset.size - 1);
        for &mut (_, index) in outside {
            self.drop(index, Fate::OutsideSubset);
        }
    }
}
