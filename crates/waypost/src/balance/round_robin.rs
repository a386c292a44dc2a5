use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::Strategy;
use crate::model::Endpoint;

/// Each endpoint in turn.
///
/// The first turn is a random one, so that many clients which start together don't all begin with
/// the same endpoint; the position is kept when the endpoints change.
#[derive(Debug)]
pub struct RoundRobin {
    turn: AtomicUsize,
}

impl RoundRobin {
    /// Begins anywhere.
    pub fn new() -> Self {
        Self::starting_at(fastrand::usize(..))
    }

    /// Begins at a known position.
    pub fn starting_at(turn: usize) -> Self {
        Self {
            turn: AtomicUsize::new(turn),
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

    fn choose(&self, candidates: &[Arc<Endpoint>]) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed) % candidates.len()
    }
}
