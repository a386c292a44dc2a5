//! Least connections.

use std::hint::select_unpredictable;
use std::sync::Arc;

use super::alias::AliasTable;
use super::{Candidates, Chooser, Strategy};
use crate::shard::ShardedRng;

/// Picks the endpoint with the fewest requests in flight relative to its weight. Requests in flight are
/// the [`Lease`](crate::Lease)s held by this process.
///
/// With up to 32 endpoints, the best of all is picked, and ties are broken at random by weight. With
/// more, two are drawn at random by weight and the better one is used, which is enough to keep the
/// longest queue short (Mitzenmacher, "The power of two choices", 2001).
#[derive(Debug)]
pub struct LeastConnections {
    rng: Arc<ShardedRng>,
}

impl LeastConnections {
    /// Starts from a random seed.
    pub fn new() -> Self {
        Self {
            rng: Arc::new(ShardedRng::new()),
        }
    }

    /// Makes the same choices for the same seed, on each thread.
    pub fn seeded(seed: u64) -> Self {
        Self {
            rng: Arc::new(ShardedRng::seeded(seed)),
        }
    }
}

impl Default for LeastConnections {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for LeastConnections {
    fn name(&self) -> &'static str {
        "least_connections"
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        let rng = Arc::clone(&self.rng);
        let table = AliasTable::new(candidates);
        if candidates.are_few() {
            return Box::new(move |candidates, _| {
                // The scan starts at random, by weight, so the first of several equals is random.
                let first = table.draw(&rng);
                let all = (first..candidates.len()).chain(0..first);
                least(candidates, all)
            });
        }
        Box::new(move |candidates, _| {
            let a = table.draw(&rng);
            let queue = candidates.in_flight(a);
            if queue == 0 {
                return a;
            }
            let b = table.draw(&rng);
            let other = candidates.in_flight(b);
            // Divided by the weight, so that traffic follows the weights under load.
            let is_b_better = match candidates.weights() {
                None => other < queue,
                Some(weights) => (other as f64) * weights[a] < (queue as f64) * weights[b],
            };
            select_unpredictable(is_b_better, b, a)
        })
    }
}

#[inline]
fn least(candidates: &Candidates, indices: impl Iterator<Item = usize>) -> usize {
    let mut best = (f64::INFINITY, 0);
    for index in indices {
        let in_flight = candidates.in_flight(index);
        if in_flight == 0 {
            // None is better. The counts of the others aren't read: other cores may be writing them.
            return index;
        }
        let load = in_flight as f64 / candidates.weight(index);
        if load < best.0 {
            best = (load, index);
        }
    }
    best.1
}
