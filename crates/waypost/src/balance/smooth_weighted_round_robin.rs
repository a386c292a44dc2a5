use std::sync::Arc;

use super::schedule::schedule;
use super::{Candidates, Chooser, Strategy};
use crate::shard::Turns;

/// Each endpoint in turn, those of more weight more often, spread evenly over the cycle.
///
/// Otherwise as [`RoundRobin`](super::RoundRobin). In each cycle an endpoint has as many turns as
/// its weight says, exactly for whole weights whose sum (common factors left out) is at most 64
/// per endpoint, else rounded to 1/128 of the average weight.
#[derive(Debug)]
pub struct SmoothWeightedRoundRobin {
    turns: Arc<Turns>,
}

impl SmoothWeightedRoundRobin {
    /// Begins anywhere.
    pub fn new() -> Self {
        Self {
            turns: Arc::new(Turns::anywhere()),
        }
    }

    /// Begins at a known position of the cycle.
    pub fn starting_at(turn: usize) -> Self {
        Self {
            turns: Arc::new(Turns::starting_at(turn)),
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
        take_turns(&self.turns, candidates)
    }
}

pub(super) fn take_turns(turns: &Arc<Turns>, candidates: &Candidates) -> Box<Chooser> {
    let turns = Arc::clone(turns);
    match schedule(candidates) {
        None => Box::new(move |candidates, _| turns.next(candidates.len())),
        Some(cycle) => Box::new(move |_, _| cycle[turns.next(cycle.len())] as usize),
    }
}
