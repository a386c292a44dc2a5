//! Power of two choices by latency and load.

use std::hint::select_unpredictable;
use std::sync::Arc;

use super::alias::AliasTable;
use super::{Candidates, Chooser, Strategy};
use crate::shard::ShardedRng;

/// Picks the better of two random endpoints: the one with the lower product of latency and load. Load is
/// the number of requests in flight divided by the endpoint's weight.
///
/// Each of the two is drawn from all endpoints at random by weight, so that traffic follows the weights.
/// Latency is a moving average that rises at once and falls slowly (Finagle's "Peak EWMA"), computed
/// from the outcomes reported to [`Lease`](crate::Lease)s. A failure counts as a slow response, so an
/// endpoint that fails fast doesn't attract traffic. An endpoint without a measurement is assumed to be
/// as fast as the one it is compared with.
#[derive(Debug)]
pub struct P2cPeakEwma {
    rng: Arc<ShardedRng>,
}

impl P2cPeakEwma {
    /// Starts from a random seed.
    pub fn new() -> Self {
        Self::with(ShardedRng::new())
    }

    /// Makes the same choices for the same seed, on each thread.
    pub fn seeded(seed: u64) -> Self {
        Self::with(ShardedRng::seeded(seed))
    }

    fn with(rng: ShardedRng) -> Self {
        Self { rng: Arc::new(rng) }
    }
}

impl Default for P2cPeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

/// How many times the second endpoint is drawn until it differs from the first. If it never differs, the
/// first is used, so traffic still follows the weights; but a slow endpoint is rarely picked because it
/// was drawn twice.
const DRAWS_OF_OTHER: usize = 3;

impl Strategy for P2cPeakEwma {
    fn name(&self) -> &'static str {
        "p2c_peak_ewma"
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        let rng = Arc::clone(&self.rng);
        let table = AliasTable::new(candidates);
        // The load of one request in flight at each endpoint: the greater the weight, the less. So
        // traffic follows the weights under load as well.
        let request_cost: Option<Box<[f32]>> = candidates.weights().map(|weights| {
            let mean = weights.iter().sum::<f64>() / weights.len() as f64;
            weights
                .iter()
                .map(|weight| (mean / weight) as f32)
                .collect()
        });
        Box::new(move |candidates, _| {
            let a = table.draw(&rng);
            let others = std::iter::repeat_with(|| table.draw(&rng));
            let Some(b) = others.take(DRAWS_OF_OTHER).find(|b| *b != a) else {
                return a;
            };
            let (one, other) = (candidates.endpoint(a), candidates.endpoint(b));
            let (latency_a, latency_b) = one.state().latency.compare(&other.state().latency);
            let load_a = one.in_flight_estimate() as f32;
            let load_b = other.in_flight_estimate() as f32;
            let (load_a, load_b) = match &request_cost {
                None => (load_a, load_b),
                Some(cost) => (load_a * cost[a], load_b * cost[b]),
            };
            let is_b_better = (load_b + 1.0) * latency_b < (load_a + 1.0) * latency_a;
            select_unpredictable(is_b_better, b, a)
        })
    }
}
