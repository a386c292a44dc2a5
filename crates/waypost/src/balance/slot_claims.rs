//! Which endpoint owns each slot of consistent hashing.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Candidates;
use super::key::{hash, mix};
use crate::endpoint::Endpoint;

/// The number of slots.
pub(super) const SLOTS: usize = 1 << 16;

/// The slot of a hash.
pub(super) fn slot_of(hash: u64) -> u16 {
    (hash >> 48) as u16
}

/// The slot to try after this one: a fixed pseudo-random permutation step.
pub(super) fn next_slot(slot: u16) -> u16 {
    slot_of(mix(u64::from(slot) + 0x9e37_79b9_7f4a_7c15))
}

/// The earliest claim on each slot.
///
/// Rendezvous hashing can be described as a race: each endpoint claims slots at random times, at a rate
/// equal to its weight, and the earliest claim of a slot wins. Computing the claim of each endpoint on
/// each slot would take long for many endpoints. Instead, each endpoint's claims are generated in order
/// of time: the *j*-th claim is at a time between *j* and *j + 1*, divided by the weight, on a slot that
/// is a hash of the endpoint's id and *j*. An endpoint's claims depend only on its id and weight, so
/// adding an endpoint only moves slots to that endpoint.
///
/// Claims are generated up to a time, the horizon, until there are [`CLAIMS_PER_SLOT`] per slot on average.
/// The few slots without a claim (one in a thousand) take the owner of another slot.
///
/// When few endpoints have changed, only the slots that they win or lose are computed again. The result is
/// the same as that of a new computation, so that all clients agree, whatever they saw before.
#[derive(Debug)]
pub(super) struct SlotClaims {
    endpoints: Arc<[Arc<Endpoint>]>,
    weights: Vec<f64>,
    /// The hashes of the endpoints' ids.
    seeds: Vec<u64>,
    horizon: f64,
    earliest: Box<[Claim]>,
}

/// The time of a claim and the index of the endpoint, in one number: the earlier claim is the smaller
/// number, since times aren't negative. Candidates are sorted by id, so if times are equal, the claim of the
/// lower id is smaller in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim(u64);

impl Claim {
    /// No claim. It compares as later than any claim.
    const NONE: Self = Self(u64::MAX);

    fn new(time: f32, owner: u32) -> Self {
        Self(u64::from(time.to_bits()) << 32 | u64::from(owner))
    }

    fn time(self) -> f32 {
        f32::from_bits((self.0 >> 32) as u32)
    }

    /// The index of an endpoint.
    fn owner(self) -> u32 {
        self.0 as u32
    }
}

const CLAIMS_PER_SLOT: f64 = 7.0;

/// The new index of an endpoint that is no longer there, or has another weight.
const GONE: u32 = u32::MAX;

impl SlotClaims {
    pub(super) fn new(candidates: &Candidates) -> Self {
        let seeds = candidates.endpoints().iter().map(|e| seed_of(e)).collect();
        let mut claims = Self {
            endpoints: Arc::clone(candidates.endpoints_shared()),
            weights: weights_of(candidates),
            seeds,
            horizon: 0.0,
            earliest: vec![Claim::NONE; SLOTS].into(),
        };
        claims.horizon = horizon_of(&claims.weights);
        claims.claim_where(|_| true);
        claims
    }

    /// The claims after the candidates have changed.
    pub(super) fn updated(mut self, candidates: &Candidates) -> Self {
        let weights = weights_of(candidates);
        let Some(change) = self.change(candidates, &weights) else {
            return Self::new(candidates);
        };
        let before = std::mem::replace(&mut self.horizon, horizon_of(&weights));
        self.endpoints = Arc::clone(candidates.endpoints_shared());
        (self.weights, self.seeds) = (weights, change.seeds);
        // Claims this close to the horizon are computed again, to see whether they are within it. The margin
        // is wider than any rounding error.
        let grows = self.horizon > before;
        let (near, past) = (self.horizon.min(before) * 0.999_99, self.horizon * 1.000_01);
        let mut open = vec![false; SLOTS];
        let mut any_open = false;
        for (claim, open) in self.earliest.iter_mut().zip(&mut open) {
            if *claim == Claim::NONE {
                *open = grows;
            } else {
                let moved = change.moved[claim.owner() as usize];
                let time = f64::from(claim.time());
                if moved == GONE || (time >= near && time <= past) {
                    (*claim, *open) = (Claim::NONE, true);
                } else if time > past {
                    // All other claims on the slot are even later.
                    *claim = Claim::NONE;
                } else {
                    *claim = Claim::new(claim.time(), moved);
                }
            }
            any_open |= *open;
        }
        if any_open {
            self.claim_where(|slot| open[usize::from(slot)]);
        }
        for index in change.added {
            self.claim(index, |_| true);
        }
        self
    }

    /// Enters the claims of all endpoints on some slots.
    fn claim_where(&mut self, is_wanted: impl Fn(u16) -> bool) {
        for index in 0..self.seeds.len() {
            self.claim(index, &is_wanted);
        }
    }

    /// Enters the claims of one endpoint on some slots.
    #[inline]
    fn claim(&mut self, index: usize, is_wanted: impl Fn(u16) -> bool) {
        let (weight, seed, owner) = (self.weights[index], self.seeds[index], index as u32);
        let (end, step) = ((self.horizon * weight) as f32, weight.recip() as f32);
        for number in 0..end.ceil() as u32 {
            let random = mix(seed.wrapping_add(number.into()));
            // The upper 16 bits are the slot, the lower 24 the time between two claims.
            let slot = slot_of(random);
            if !is_wanted(slot) {
                continue;
            }
            let fraction = (random as u32 & 0xff_ffff) as f32 / 16_777_216.0;
            let steps = number as f32 + fraction;
            // Without branches, which would be mispredicted too often.
            let claim = if steps < end {
                Claim::new(steps * step, owner)
            } else {
                Claim::NONE
            };
            let earliest = &mut self.earliest[usize::from(slot)];
            *earliest = claim.min(*earliest);
        }
    }

    /// The index of each slot's owner.
    pub(super) fn owners(&self) -> Box<[u32]> {
        let mut owners: Box<[u32]> = self.earliest.iter().map(|claim| claim.owner()).collect();
        for slot in 0..=u16::MAX {
            if owners[usize::from(slot)] == Claim::NONE.owner() {
                let others = std::iter::successors(Some(slot), |slot| Some(next_slot(*slot)));
                let claims = others.map(|slot| self.earliest[usize::from(slot)].owner());
                let claimed = claims
                    .take(SLOTS)
                    .find(|owner| *owner != Claim::NONE.owner());
                owners[usize::from(slot)] = claimed.unwrap_or_default();
            }
        }
        owners
    }

    /// What has changed; `None` if it is so much that computing everything is quicker.
    fn change(&self, candidates: &Candidates, weights: &[f64]) -> Option<Change> {
        let (old, new) = (&*self.endpoints, candidates.endpoints());
        let (most_gone, most_added) = (old.len() / 8, new.len() / 2);
        let mut change = Change {
            moved: Vec::with_capacity(old.len()),
            added: Vec::new(),
            seeds: Vec::with_capacity(new.len()),
        };
        let (mut gone, mut next) = (0, 0);
        for (index, before) in old.iter().enumerate() {
            let mut moved = GONE;
            while let Some(after) = new.get(next) {
                let order = if Arc::ptr_eq(before, after) {
                    Ordering::Equal
                } else {
                    before.instance().id().cmp(after.instance().id())
                };
                match order {
                    Ordering::Less => break,
                    Ordering::Equal => {
                        if self.weights[index] == weights[next] {
                            moved = next as u32;
                        } else {
                            change.added.push(next);
                        }
                        change.seeds.push(self.seeds[index]);
                        next += 1;
                        break;
                    }
                    Ordering::Greater => {
                        change.added.push(next);
                        change.seeds.push(seed_of(after));
                        next += 1;
                    }
                }
            }
            gone += usize::from(moved == GONE);
            change.moved.push(moved);
            if gone > most_gone || change.added.len() > most_added {
                return None;
            }
        }
        change.added.extend(next..new.len());
        change.seeds.extend(new[next..].iter().map(|e| seed_of(e)));
        (change.added.len() <= most_added).then_some(change)
    }
}

/// The difference between two lists of candidates.
struct Change {
    /// The new index of each endpoint, or [`GONE`].
    moved: Vec<u32>,
    /// The new indices of the endpoints that are new or have another weight, in order.
    added: Vec<usize>,
    /// The hashes of the new endpoints' ids.
    seeds: Vec<u64>,
}

fn seed_of(endpoint: &Endpoint) -> u64 {
    hash(1, endpoint.instance().id().as_str().as_bytes())
}

fn weights_of(candidates: &Candidates) -> Vec<f64> {
    match candidates.weights() {
        Some(weights) => weights.to_vec(),
        None => vec![1.0; candidates.len()],
    }
}

fn horizon_of(weights: &[f64]) -> f64 {
    CLAIMS_PER_SLOT * SLOTS as f64 / weights.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use waypost_core::{Instance, ServiceName, Weight};

    use super::*;
    use crate::snapshot::Snapshot;

    /// The candidates with these numbers and weights.
    fn candidates(of: &[(u32, u16)]) -> Candidates {
        let service = ServiceName::new("auth").unwrap();
        let instance = |(number, weight): &(u32, u16)| {
            let builder = Instance::builder(service.clone(), "10.0.0.1".parse().unwrap(), 80);
            let builder = builder.id(format!("i{number:05}"));
            Arc::new(builder.weight(Weight::new(*weight)).build().unwrap())
        };
        let pending = Snapshot::pending(service.clone(), "test".into());
        let snapshot = pending.answered(Some(of.iter().map(instance).collect()));
        let weights = snapshot.ready().iter().map(|endpoint| endpoint.weight());
        Candidates::new(snapshot.ready_shared(), weights.collect())
    }

    #[test]
    fn an_update_gives_the_same_owners_as_a_new_computation() {
        let mut random = fastrand::Rng::with_seed(11);
        for (count, changes) in [
            (1, 0),
            (3, 1),
            (8, 1),
            (40, 3),
            (1_000, 5),
            (1_000, 120),
            (3_000, 1),
        ] {
            for weights in [1..2, 1..40] {
                let mut all: Vec<(u32, u16)> = (0..count)
                    .map(|number| (number * 10, random.u16(weights.clone())))
                    .collect();
                let mut claims = SlotClaims::new(&candidates(&all));
                for _ in 0..8 {
                    for _ in 0..changes {
                        let at = random.usize(..all.len());
                        match random.u8(..3) {
                            0 => all[at].1 = random.u16(weights.clone()),
                            1 if all.len() > 1 => drop(all.remove(at)),
                            _ => all.push((random.u32(..100_000), random.u16(weights.clone()))),
                        }
                    }
                    all.sort_unstable();
                    all.dedup_by_key(|(number, _)| *number);
                    let candidates = candidates(&all);
                    claims = claims.updated(&candidates);
                    let fresh = SlotClaims::new(&candidates);
                    assert!(claims.owners() == fresh.owners(), "{count} {changes}");
                }
            }
        }
    }
}
