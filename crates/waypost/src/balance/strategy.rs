//! The strategy trait, and the strategies that a configuration can name.

use std::fmt;
use std::sync::Arc;

use waypost_core::Invalid;

use super::consistent_hash::ConsistentHash;
use super::least_connections::LeastConnections;
use super::p2c_peak_ewma::P2cPeakEwma;
use super::random::Random;
use super::round_robin::RoundRobin;
use super::smooth_weighted_round_robin::SmoothWeightedRoundRobin;
use super::weighted_random::WeightedRandom;
use super::{Candidates, Key};
use crate::endpoint::Endpoint;

/// How an endpoint is chosen. Each value is used for one service and may keep state.
///
/// ```
/// use waypost::balance::{Candidates, Chooser, Strategy};
///
/// /// Always the endpoint with the greatest weight.
/// #[derive(Debug)]
/// struct Heaviest;
///
/// impl Strategy for Heaviest {
///     fn name(&self) -> &'static str {
///         "heaviest"
///     }
///
///     fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
///         let all = 0..candidates.len();
///         let heaviest = all.max_by(|&a, &b| candidates.weight(a).total_cmp(&candidates.weight(b)));
///         let heaviest = heaviest.unwrap_or_default();
///         Box::new(move |_, _| heaviest)
///     }
/// }
/// ```
pub trait Strategy: fmt::Debug + Send + Sync + 'static {
    /// Its name in configurations and reports, such as `round_robin`.
    fn name(&self) -> &'static str;

    /// The weight that an endpoint starts from; by default the one in the registry. An endpoint
    /// whose weight is 0, negative or not a number is not used.
    fn weight(&self, endpoint: &Endpoint) -> f64 {
        endpoint.weight()
    }

    /// Prepares a function that chooses. Called when endpoints or weights change, never during a pick.
    /// Do expensive work here, and keep state that must survive a change in the strategy itself.
    ///
    /// If it panics, the panic is reported and the function prepared before stays in use.
    fn prepare(&self, candidates: &Candidates) -> Box<Chooser>;
}

/// Returns the index of the candidate to use; an index past the end wraps around. It is passed the
/// candidates that it was prepared for, and the request's key, if it has one.
pub type Chooser = dyn Fn(&Candidates, Option<Key>) -> usize + Send + Sync;

/// Creates a strategy for each service.
pub(crate) type StrategyFactory = Arc<dyn Fn() -> Box<dyn Strategy> + Send + Sync>;

type Constructor = fn() -> Box<dyn Strategy>;

const NAMED: &[(&str, Constructor)] = &[
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

/// The factory for a strategy's name.
pub(crate) fn factory_named(name: &str) -> Result<StrategyFactory, Invalid> {
    match NAMED.iter().find(|(known, _)| *known == name) {
        Some((_, constructor)) => Ok(Arc::new(constructor)),
        None => {
            let known: Vec<_> = NAMED.iter().map(|(name, _)| *name).collect();
            let why = format!("use one of: {}", known.join(", "));
            Err(Invalid::new("load balancing strategy", name, why))
        }
    }
}

/// A new strategy by name: `round_robin`, `smooth_weighted_round_robin`, `random`,
/// `weighted_random`, `least_connections`, `p2c_peak_ewma` or `consistent_hash`.
///
/// # Errors
/// If there is no strategy with this name.
pub fn strategy_named(name: &str) -> Result<Box<dyn Strategy>, Invalid> {
    factory_named(name).map(|create| create())
}
