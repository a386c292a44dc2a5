use std::sync::Arc;

use waypost_core::Invalid;

use super::{
    ConsistentHash, LeastConnections, P2cPeakEwma, Random, RoundRobin, SmoothWeightedRoundRobin,
    Strategy, WeightedRandom,
};

/// Makes a strategy for each service.
pub(crate) type StrategyFactory = Arc<dyn Fn() -> Box<dyn Strategy> + Send + Sync>;

type Make = fn() -> Box<dyn Strategy>;

/// The strategies that a configuration can name.
const NAMED: &[(&str, Make)] = &[
    ("round_robin", || Box::new(RoundRobin::new())),
    ("smooth_weighted_round_robin", || {
        Box::new(SmoothWeightedRoundRobin::new())
    }),
    ("random", || Box::new(Random::new())),
    ("weighted_random", || Box::new(WeightedRandom::new())),
    ("least_connections", || Box::new(LeastConnections::new())),
    ("p2c_peak_ewma", || Box::new(P2cPeakEwma::new())),
    ("consistent_hash", || Box::new(ConsistentHash::new())),
];

/// The factory of the strategy that a configuration names.
pub(crate) fn named(name: &str) -> Result<StrategyFactory, Invalid> {
    match NAMED.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => Ok(Arc::new(make)),
        None => {
            let known: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            let why = format!("use one of: {}", known.join(", "));
            Err(Invalid::new("load balancing strategy", name, why))
        }
    }
}

/// A new strategy of the name that a configuration gives: `round_robin`,
/// `smooth_weighted_round_robin`, `random`, `weighted_random`, `least_connections`,
/// `p2c_peak_ewma` or `consistent_hash`.
///
/// # Errors
/// If there is none of that name.
pub fn strategy_named(name: &str) -> Result<Box<dyn Strategy>, Invalid> {
    named(name).map(|make| make())
}
