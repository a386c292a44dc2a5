//! Round robin.

use std::sync::Arc;

use super::smooth_weighted_round_robin::rotate;
use super::{Candidates, Chooser, Strategy};
use crate::endpoint::Endpoint;
use crate::shard::ShardedPosition;

/// Picks each endpoint in turn, regardless of weight.
///
/// The first position is random, so that many clients that start together don't all begin with the
/// same endpoint; it is kept when the endpoints change. Each core has its own position: with one shared
/// counter, picks would become slower with each additional core.
#[derive(Debug)]
pub struct RoundRobin {
    position: Arc<ShardedPosition>,
}

impl RoundRobin {
    /// Starts at a random position.
    pub fn new() -> Self {
        Self {
            position: Arc::new(ShardedPosition::random()),
        }
    }

    /// Starts at this position.
    pub fn starting_at(position: usize) -> Self {
        Self {
            position: Arc::new(ShardedPosition::starting_at(position)),
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
        rotate(&self.position, candidates)
    }
}
