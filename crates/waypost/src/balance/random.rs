use std::sync::Arc;

use super::weighted_random::draw;
use super::{Candidates, Chooser, Strategy};
use crate::shard::Dice;
use crate::snapshot::Endpoint;

/// Any endpoint, each as likely as the other, whatever its weight.
#[derive(Debug)]
pub struct Random {
    dice: Arc<Dice>,
}

impl Random {
    /// Draws from a random seed.
    pub fn new() -> Self {
        Self {
            dice: Arc::new(Dice::new()),
        }
    }

    /// Draws the same choices for the same seed, on each thread.
    pub fn seeded(seed: u64) -> Self {
        Self {
            dice: Arc::new(Dice::seeded(seed)),
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
        draw(&self.dice, candidates)
    }
}
