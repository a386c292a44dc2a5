//! Consistent hashing.

use std::sync::Arc;

use super::key::{hash, mix};
use super::{Candidates, Chooser, Strategy};
use crate::shard::ShardedRng;

/// Sends all requests with the same [`Key`](super::Key) to the same endpoint.
///
/// When an endpoint is added, it takes keys from the others in proportion to its weight; when one is
/// removed, its keys are spread over the others. Other keys stay (about one more key moves for each
/// hundred that must). All clients that see the same endpoints agree, whatever they saw before. A
/// request without a key goes to a random endpoint, by weight.
///
/// With a [bound](Self::with_bound), an endpoint that has more than its share of requests in flight
/// passes keys on to others. That is off by default, as in Envoy and HAProxy, since two overlapping
/// requests with one key may then go to different endpoints.
///
/// # How it works
/// Keys are hashed to 65,536 slots, and each slot belongs to one endpoint, by weighted rendezvous
/// hashing (Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998). Each
/// endpoint's share of the slots is exact to about one in a few hundred for a hundred endpoints;
/// with thousands of endpoints each has only a few slots, and shares vary more.
#[derive(Debug)]
pub struct ConsistentHash {
    rng: Arc<ShardedRng>,
    bound: f64,
}

impl ConsistentHash {
    /// Consistent hashing without a bound.
    pub fn new() -> Self {
        Self {
            rng: Arc::new(ShardedRng::new()),
            bound: f64::INFINITY,
        }
    }

    /// Limits the requests in flight at an endpoint to this multiple of the average for its weight;
    /// its other keys are passed on (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with
    /// bounded loads", 2017). The average is taken over at most 32 endpoints. 1.25 is a usual value;
    /// a bound below 1 counts as 1.
    #[must_use]
    pub fn with_bound(mut self, bound: f64) -> Self {
        self.bound = bound.max(1.0);
        self
    }
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for ConsistentHash {
    fn name(&self) -> &'static str {
        "consistent_hash"
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        let table = SlotTable::new(candidates);
        let (rng, bound) = (Arc::clone(&self.rng), self.bound);
        if bound.is_infinite() {
            return Box::new(move |_, key| {
                let key = key.map_or_else(|| rng.next_u64(), |key| key.0);
                table.owner(slot_of(key))
            });
        }
        Box::new(move |candidates, key| {
            let key = key.map_or_else(|| rng.next_u64(), |key| key.0);
            let first = slot_of(key);
            let slots = std::iter::successors(Some(first), |slot| Some(next_slot(*slot)));
            slots
                .take(MAX_PASSES)
                .map(|slot| table.owner(slot))
                .find(|&index| is_within_bound(candidates, index, bound))
                .unwrap_or_else(|| table.owner(first))
        })
    }
}

/// How many slots are tried until an endpoint is within its bound.
const MAX_PASSES: usize = 32;

/// How many endpoints are sampled for the average load.
const SAMPLE: usize = 32;

fn is_within_bound(candidates: &Candidates, index: usize, bound: f64) -> bool {
    let in_flight = candidates.in_flight(index);
    if in_flight == 0 {
        return true;
    }
    let sampled = candidates.len().min(SAMPLE);
    let step = candidates.len() / sampled;
    let sample = (0..sampled).map(|offset| (index + offset * step) % candidates.len());
    let (load, weight) = sample.fold((0, 0.0), |(load, weight), index| {
        let more = candidates.in_flight(index);
        (load + more, weight + candidates.weight(index))
    });
    // The endpoint's share of the load, including this request.
    let share = (load + 1) as f64 * candidates.weight(index) / weight;
    (in_flight + 1) as f64 <= (bound * share).ceil()
}

const SLOTS: usize = 1 << 16;

fn slot_of(key: u64) -> u16 {
    (key >> 48) as u16
}

/// The slot to try after this one: a fixed pseudo-random permutation step.
fn next_slot(slot: u16) -> u16 {
    slot_of(mix(u64::from(slot) + 0x9e37_79b9_7f4a_7c15))
}

/// Which endpoint owns each slot.
///
/// Rendezvous hashing can be described as a race: each endpoint claims slots at random times, at a rate
/// equal to its weight, and the earliest claim of a slot wins. Computing the claim of each endpoint on
/// each slot would take long for many endpoints. Instead, each endpoint's claims are generated in order
/// of time: the *j*-th claim is at a time between *j* and *j + 1*, divided by the weight, on a slot that
/// is a hash of the endpoint's id and *j*. An endpoint's claims depend only on its id and weight, so
/// adding an endpoint only moves slots to that endpoint.
///
/// Claims are generated until there are [`CLAIMS_PER_SLOT`] per slot on average. The few slots without
/// a claim (one in a thousand) take the owner of another slot.
#[derive(Debug)]
struct SlotTable(Box<[u32]>);

const CLAIMS_PER_SLOT: f64 = 7.0;

const UNCLAIMED: u32 = u32::MAX;

impl SlotTable {
    fn new(candidates: &Candidates) -> Self {
        let count = candidates.len();
        let total: f64 = (0..count).map(|index| candidates.weight(index)).sum();
        let end = CLAIMS_PER_SLOT * SLOTS as f64 / total;
        let mut claims = vec![(f32::INFINITY, UNCLAIMED); SLOTS];
        for index in 0..count {
            let weight = candidates.weight(index);
            let (end, step) = ((end * weight) as f32, weight.recip() as f32);
            let id = candidates.endpoint(index).instance().id();
            let seed = hash(1, id.as_str().as_bytes());
            for number in 0..end.ceil() as u32 {
                let random = mix(seed.wrapping_add(number.into()));
                // The upper 16 bits are the slot, the lower 24 the time between two claims.
                let fraction = (random as u32 & 0xff_ffff) as f32 / 16_777_216.0;
                let steps = number as f32 + fraction;
                let slot = &mut claims[usize::from(slot_of(random))];
                // Candidates are sorted by id, so of equal times the lower id wins in every process.
                if steps < end && steps * step < slot.0 {
                    *slot = (steps * step, index as u32);
                }
            }
        }
        let owner = |slot: u16| claims[usize::from(slot)].1;
        let owners = (0..=u16::MAX).map(|slot| {
            let others = std::iter::successors(Some(slot), |slot| Some(next_slot(*slot)));
            let claimed = others.map(owner).take(SLOTS).find(|o| *o != UNCLAIMED);
            claimed.unwrap_or_default()
        });
        Self(owners.collect())
    }

    #[inline]
    fn owner(&self, slot: u16) -> usize {
        self.0[usize::from(slot)] as usize
    }
}
