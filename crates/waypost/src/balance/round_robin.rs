use std::sync::Arc;

use super::smooth_weighted_round_robin::take_turns;
use super::{Candidates, Chooser, Strategy};
use crate::shard::Turns;
use crate::snapshot::Endpoint;

/// Each endpoint in turn, whatever its weight.
///
/// The first turn is a random one, so that many clients which start together don't all begin with
/// the same endpoint; the position is kept when the endpoints change. Each thread takes turns of
/// its own: one counter for all would make a pick slower with every core.
#[derive(Debug)]
pub struct RoundRobin {
    turns: Arc<Turns>,
}

impl RoundRobin {
    /// Begins anywhere.
    pub fn new() -> Self {
        Self {
            turns: Arc::new(Turns::anywhere()),
        }
    }

    /// Begins at a known position.
    pub fn starting_at(turn: usize) -> Self {
        Self {
            turns: Arc::new(Turns::starting_at(turn)),
        }
    }
}

impl Default for RoundRobin {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for RoundRobin {
    fn name(&self) -> &'static str {
        "round_robin"
    }

    fn weight(&self, _: &Endpoint) -> f64 {
        1.0
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        take_turns(&self.turns, candidates)
    }
}
