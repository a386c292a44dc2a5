//! Weighted round robin with evenly spread turns.

use std::sync::Arc;

use super::schedule::schedule;
use super::{Candidates, Chooser, Strategy};
use crate::shard::ShardedPosition;

/// Picks each endpoint in turn; an endpoint with more weight has more turns, spread evenly over the
/// cycle.
///
/// Otherwise like [`RoundRobin`](super::RoundRobin). In each cycle an endpoint has turns in proportion
/// to its weight: exactly for whole weights whose sum, divided by common factors, is at most 64 per
/// endpoint; otherwise rounded to 1/128 of the average weight.
#[derive(Debug)]
pub struct SmoothWeightedRoundRobin {
    position: Arc<ShardedPosition>,
}

impl SmoothWeightedRoundRobin {
    /// Starts at a random position.
    pub fn new() -> Self {
        Self {
            position: Arc::new(ShardedPosition::random()),
        }
    }

    /// Starts at this position of the cycle.
    pub fn starting_at(position: usize) -> Self {
        Self {
            position: Arc::new(ShardedPosition::starting_at(position)),
        }
    }
}

impl Default for SmoothWeightedRoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for SmoothWeightedRoundRobin {
    fn name(&self) -> &'static str {
        "smooth_weighted_round_robin"
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        rotate(&self.position, candidates)
    }
}

pub(super) fn rotate(position: &Arc<ShardedPosition>, candidates: &Candidates) -> Box<Chooser> {
    let position = Arc::clone(position);
    match schedule(candidates) {
        None => Box::new(move |candidates, _| position.next(candidates.len())),
        Some(cycle) => Box::new(move |_, _| cycle[position.next(cycle.len())] as usize),
    }
}
