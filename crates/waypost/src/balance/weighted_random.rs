use std::fmt;
use std::sync::Arc;

use waypost_core::Instance;

use super::alias::AliasTable;
use super::{Candidates, Chooser, Strategy};
use crate::shard::Dice;
use crate::snapshot::Endpoint;

/// Any endpoint, each as likely as its weight says.
///
/// ```
/// use waypost::WeightedRandom;
/// // Twice the traffic to the newer version.
/// let strategy = WeightedRandom::by(|instance| match instance.version() {
///     Some("2.0.0") => 10.0,
///     _ => 5.0,
/// });
/// ```
pub struct WeightedRandom {
    dice: Arc<Dice>,
    weight: Option<Box<WeightFunction>>,
}

type WeightFunction = dyn Fn(&Instance) -> f64 + Send + Sync;

impl WeightedRandom {
    /// By the weights in the registry, from a random seed.
    pub fn new() -> Self {
        Self {
            dice: Arc::new(Dice::new()),
            weight: None,
        }
    }

    /// By a function of the instance instead of its own weight. It is asked when something
    /// changes, not on each pick. What is not a number, negative or infinite counts as 0, which
    /// means that the instance is left out while there is another.
    pub fn by(weight: impl Fn(&Instance) -> f64 + Send + Sync + 'static) -> Self {
        Self {
            weight: Some(Box::new(weight)),
            ..Self::new()
        }
    }

    /// Draws the same choices for the same seed, on each thread.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.dice = Arc::new(Dice::seeded(seed));
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
        draw(&self.dice, candidates)
    }
}

pub(super) fn draw(dice: &Arc<Dice>, candidates: &Candidates) -> Box<Chooser> {
    let dice = Arc::clone(dice);
    let table = AliasTable::new(candidates);
    Box::new(move |_, _| table.draw(&dice))
}
