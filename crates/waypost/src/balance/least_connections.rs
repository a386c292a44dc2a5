use std::hint::select_unpredictable;
use std::sync::Arc;

use super::alias::AliasTable;
use super::{Candidates, Chooser, Strategy};
use crate::shard::Dice;

/// The endpoint with the fewest requests in flight for its weight, counting [`Lease`](crate::Lease)s
/// held by this process.
///
/// Exact up to 32 endpoints, ties going to any of them by weight. Of more endpoints, the better one
/// of two that are drawn in proportion to weight: enough to keep the longest queue short
/// (Mitzenmacher, "The power of two choices", 2001).
#[derive(Debug)]
pub struct LeastConnections {
    dice: Arc<Dice>,
}

impl LeastConnections {
    /// Breaks ties from a random seed.
    pub fn new() -> Self {
        Self {
            dice: Arc::new(Dice::new()),
        }
    }

    /// Breaks ties the same way for the same seed, on each thread.
    pub fn seeded(seed: u64) -> Self {
        Self {
            dice: Arc::new(Dice::seeded(seed)),
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
        let dice = Arc::clone(&self.dice);
        let table = AliasTable::new(candidates);
        if candidates.counts_exactly() {
            return Box::new(move |candidates, _| {
                // Beginning anywhere, by weight, makes the first of equals any of them.
                let first = table.draw(&dice);
                let all = (first..candidates.len()).chain(0..first);
                least(candidates, all)
            });
        }
        Box::new(move |candidates, _| {
            // Weight is in the draw already, so the queues alone are compared.
            let a = table.draw(&dice);
            let queue = candidates.in_flight(a);
            if queue == 0 {
                return a;
            }
            let b = table.draw(&dice);
            select_unpredictable(candidates.in_flight(b) < queue, b, a)
        })
    }
}

#[inline]
fn least(candidates: &Candidates, indices: impl Iterator<Item = usize>) -> usize {
    let mut best = (f64::INFINITY, 0);
    for index in indices {
        let load = candidates.in_flight(index) as f64 / candidates.weight(index);
        if load < best.0 {
            best = (load, index);
        }
    }
    best.1
}
