use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Candidates, Chooser, Strategy,
    alias::AliasTable,
    shard::{Dice, Sharded},
};

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
    clock: Arc<Sharded>,
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
            clock: Arc::new(Sharded::new(|_| 0)),
        }
    }
}

impl Default for P2cPeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

/// The clock is read on one of so many picks of a thread: averages decay over seconds, and reading
/// it costs as much as the whole pick.
const PICKS_PER_LOOK: u64 = 16;

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
        let clock = Arc::clone(&self.clock);
        let table = AliasTable::new(candidates);
        Box::new(move |candidates, _| {
            let a = table.draw(&dice);
            let others = std::iter::repeat_with(|| table.draw(&dice));
            let Some(b) = others.take(DRAWS_OF_OTHER).find(|b| *b != a) else {
                return a;
            };
            let now = clock.replace(|seen| look(seen, candidates));
            let (one, other) = (candidates.endpoint(a), candidates.endpoint(b));
            let latencies = (
                one.state().latency.estimate(now),
                other.state().latency.estimate(now),
            );
            let (latency_a, latency_b) = match latencies {
                (Some(a), Some(b)) => (a, b),
                (Some(known), None) | (None, Some(known)) => (known, known),
                (None, None) => (1.0, 1.0),
            };
            let cost_a = (one.in_flight() + 1) as f32 * latency_a;
            let cost_b = (other.in_flight() + 1) as f32 * latency_b;
            if cost_b < cost_a { b } else { a }
        })
    }
}

/// The time in milliseconds as last seen, in the upper bits, and how many picks ago, in the lower.
#[inline]
fn look(seen: u64, candidates: &Candidates) -> (u64, u64) {
    let millis = match seen % PICKS_PER_LOOK {
        0 => candidates.endpoint(0).state().fleet.millis(Instant::now()),
        _ => seen / PICKS_PER_LOOK,
    };
    (
        millis * PICKS_PER_LOOK + (seen + 1) % PICKS_PER_LOOK,
        millis,
    )
}
