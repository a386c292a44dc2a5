//! Random choice by weight.

use std::fmt;
use std::sync::Arc;

use waypost_core::Instance;

use super::alias::AliasTable;
use super::{Candidates, Chooser, Strategy};
use crate::endpoint::Endpoint;
use crate::shard::ShardedRng;

/// Picks a random endpoint, with a probability in proportion to its weight.
///
/// ```
/// use waypost::balance::WeightedRandom;
/// // Twice the traffic to the newer version.
/// let strategy = WeightedRandom::by(|instance| match instance.version() {
///     Some("2.0.0") => 10.0,
///     _ => 5.0,
/// });
/// ```
pub struct WeightedRandom {
    rng: Arc<ShardedRng>,
    weight: Option<Box<WeightFunction>>,
}

type WeightFunction = dyn Fn(&Instance) -> f64 + Send + Sync;

impl WeightedRandom {
    /// Uses the weights in the registry, from a random seed.
    pub fn new() -> Self {
        Self {
            rng: Arc::new(ShardedRng::new()),
            weight: None,
        }
    }

    /// Uses a function of the instance instead of its weight in the registry. It is called when
    /// endpoints change, not for each pick. A result that is negative, infinite or not a number
    /// counts as 0: the instance is not used while there is another.
    pub fn by(weight: impl Fn(&Instance) -> f64 + Send + Sync + 'static) -> Self {
        Self {
            weight: Some(Box::new(weight)),
            ..Self::new()
        }
    }

    /// Makes the same choices for the same seed, on each thread.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.rng = Arc::new(ShardedRng::seeded(seed));
        self
    }
}

impl Default for WeightedRandom {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for WeightedRandom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightedRandom")
            .field("by_function", &self.weight.is_some())
            .finish()
    }
}

impl Strategy for WeightedRandom {
    fn name(&self) -> &'static str {
        "weighted_random"
    }

    fn weight(&self, endpoint: &Endpoint) -> f64 {
        match &self.weight {
            Some(weight) => weight(endpoint.instance()),
            None => endpoint.weight(),
        }
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        draw(&self.rng, candidates)
    }
}

pub(super) fn draw(rng: &Arc<ShardedRng>, candidates: &Candidates) -> Box<Chooser> {
    let rng = Arc::clone(rng);
    let table = AliasTable::new(candidates);
    Box::new(move |_, _| table.draw(&rng))
}
