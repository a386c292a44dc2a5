//! Consistent hashing.

use std::sync::{Arc, Mutex, PoisonError};

use super::slot_claims::{SlotClaims, next_slot, slot_of};
use super::{Candidates, Chooser, Strategy};
use crate::shard::ShardedRng;

/// Sends all requests with the same [`Key`](super::Key) to the same endpoint.
///
/// When an endpoint is added, it takes keys from the others in proportion to its weight; when one is
/// removed, its keys are spread over the others. Other keys keep their endpoint, except for about one key
/// per hundred that must move. All clients that see the same endpoints agree, whatever they saw before. A
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
    /// The claims of the current candidates, from which those of the next are made.
    claims: Mutex<Option<SlotClaims>>,
}

impl ConsistentHash {
    /// Consistent hashing without a bound.
    pub fn new() -> Self {
        Self {
            rng: Arc::new(ShardedRng::new()),
            bound: f64::INFINITY,
            claims: Mutex::default(),
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
        let owners = {
            // Taken out, so that a panic leaves nothing half changed.
            let mut last = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
            let claims = match last.take() {
                Some(claims) => claims.updated(candidates),
                None => SlotClaims::new(candidates),
            };
            last.insert(claims).owners()
        };
        let owner = move |slot: u16| owners[usize::from(slot)] as usize;
        let (rng, bound) = (Arc::clone(&self.rng), self.bound);
        if bound.is_infinite() {
            return Box::new(move |_, key| {
                let key = key.map_or_else(|| rng.next_u64(), |key| key.0);
                owner(slot_of(key))
            });
        }
        Box::new(move |candidates, key| {
            let key = key.map_or_else(|| rng.next_u64(), |key| key.0);
            let first = slot_of(key);
            let slots = std::iter::successors(Some(first), |slot| Some(next_slot(*slot)));
            slots
                .take(MAX_PASSES)
                .map(&owner)
                .find(|&index| is_within_bound(candidates, index, bound))
                .unwrap_or_else(|| owner(first))
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

#[cfg(test)]
mod tests {
    use waypost_core::provider::MemoryProvider;
    use waypost_core::{Instance, Weight};

    use super::*;
    use crate::balance::Key;
    use crate::client::ServiceDiscoveryClient;

    #[tokio::test]
    async fn an_endpoint_gets_requests_up_to_the_bound_of_its_weighted_share() {
        let memory = MemoryProvider::new();
        for (id, weight) in [("heavy", 3), ("light", 1)] {
            let instance = Instance::from_url("auth".parse().unwrap(), "http://10.0.0.1").unwrap();
            let instance = instance.id(id).weight(Weight::new(weight));
            memory.insert(instance.build().unwrap());
        }
        let client = ServiceDiscoveryClient::builder().provider(memory);
        let client = client.strategy(|| ConsistentHash::new().with_bound(1.25));
        let client = client.build().unwrap();
        let balancer = client.balancer("auth").unwrap();
        balancer.ready().await.unwrap();
        let pick = |key| balancer.pick_for(key).unwrap();
        let mut keys = (0_u32..).map(|number| Key::new(number.to_le_bytes()));
        let key = keys
            .find(|key| pick(*key).id().as_str() == "heavy")
            .unwrap();
        // With n requests in flight, all at this endpoint, one more is allowed if
        // n + 1 <= ceil(1.25 * (n + 1) * 3 / 4).
        let mut leases = Vec::new();
        while pick(key).id().as_str() == "heavy" {
            leases.push(pick(key).lease());
        }
        assert_eq!(leases.len(), 15);
        assert_eq!(pick(key).id().as_str(), "light");
        leases.pop();
        assert_eq!(pick(key).id().as_str(), "heavy");
    }
}
