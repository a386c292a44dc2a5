use std::hint::select_unpredictable;
use std::sync::Arc;

use super::alias::AliasTable;
use super::{Candidates, Chooser, Strategy};
use crate::shard::Dice;

/// The better of two endpoints: the one with the lower latency times requests in flight.
///
/// Both are drawn in proportion to weight, the second one of all again, so that an endpoint of weight 0.99 is
/// preferred as its weight says. Latency is a moving average that rises at once and falls slowly
/// (Finagle's "Peak EWMA"), by the outcomes told to [`Lease`](crate::Lease)s. A failure counts as
/// slow, so that an endpoint which fails fast attracts nothing. One that was never measured counts
/// as fast as the one it is compared with.
#[derive(Debug)]
pub struct P2cPeakEwma {
    dice: Arc<Dice>,
}

impl P2cPeakEwma {
    /// Draws from a random seed.
    pub fn new() -> Self {
        Self::with(Dice::new())
    }

    /// Draws the same choices for the same seed, on each thread.
    pub fn seeded(seed: u64) -> Self {
        Self::with(Dice::seeded(seed))
    }

    fn with(dice: Dice) -> Self {
        Self {
            dice: Arc::new(dice),
        }
    }
}

impl Default for P2cPeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

/// How often a second one is drawn until it differs from the first. That leaves the shares of
/// equals as their weights say, since of equals the first one is taken; but a slow endpoint of many
/// is hardly ever taken for want of another.
const DRAWS_OF_OTHER: usize = 3;

impl Strategy for P2cPeakEwma {
    fn name(&self) -> &'static str {
        "p2c_peak_ewma"
    }

    fn measures_latency(&self) -> bool {
        true
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        let dice = Arc::clone(&self.dice);
        let table = AliasTable::new(candidates);
        Box::new(move |candidates, _| {
            let a = table.draw(&dice);
            let others = std::iter::repeat_with(|| table.draw(&dice));
            let Some(b) = others.take(DRAWS_OF_OTHER).find(|b| *b != a) else {
                return a;
            };
            let (one, other) = (candidates.endpoint(a), candidates.endpoint(b));
            let (latency_a, latency_b) = one.state().latency.beside(&other.state().latency);
            let cost_a = (one.in_flight_here() + 1) as f32 * latency_a;
            let cost_b = (other.in_flight_here() + 1) as f32 * latency_b;
            select_unpredictable(cost_b < cost_a, b, a)
        })
    }
}
