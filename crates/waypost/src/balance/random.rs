use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::Strategy;
use crate::model::Endpoint;

/// Any endpoint, each as likely as the other.
#[derive(Debug)]
pub struct Random {
    /// A Weyl sequence: each pick takes the next number of it as the seed of its own draw, so
    /// that picks of many threads need no lock.
    sequence: AtomicU64,
}

impl Random {
    /// Draws from a random seed.
    pub fn new() -> Self {
        Self::seeded(fastrand::u64(..))
    }

    /// Draws the same choices for the same seed.
    pub fn seeded(seed: u64) -> Self {
        Self {
            sequence: AtomicU64::new(seed),
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

    fn choose(&self, candidates: &[Arc<Endpoint>]) -> usize {
        let seed = self
            .sequence
            .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        fastrand::Rng::with_seed(seed).usize(..candidates.len())
    }
}
