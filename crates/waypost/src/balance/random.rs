//! Random choice.

use std::sync::Arc;

use super::weighted_random::draw;
use super::{Candidates, Chooser, Strategy};
use crate::endpoint::Endpoint;
use crate::shard::ShardedRng;

/// Picks a random endpoint, each with the same probability, regardless of weight.
#[derive(Debug)]
pub struct Random {
    rng: Arc<ShardedRng>,
}

impl Random {
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

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn weight(&self, _: &Endpoint) -> f64 {
        1.0
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        draw(&self.rng, candidates)
    }
}
