//! Load balancing: choosing one endpoint of many.
//!
//! A [`Balancer`] holds a *prepared picker*, made from the service's current
//! [`Snapshot`](crate::snapshot::Snapshot): the endpoints that take new work, their weights after outlier
//! detection, slow start, zone preference and subsetting, and the function that the [`Strategy`]
//! prepared from these. A pick reads it without a lock or an allocation. When the registry, an
//! ejection or slow start changes something, a task prepares another picker and swaps it in.

mod alias;
pub(crate) mod balancer;
mod candidates;
mod consistent_hash;
mod explain;
mod held;
mod key;
pub(crate) mod lease;
mod least_connections;
mod options;
mod p2c_peak_ewma;
pub(crate) mod pick;
mod picker;
mod random;
mod refresh;
mod round_robin;
mod schedule;
mod slot_claims;
mod smooth_weighted_round_robin;
mod strategy;
mod weighing;
mod weighted_random;

use std::any::Any;
use std::sync::Arc;

pub(crate) use balancer::Balancer;
pub use candidates::Candidates;
pub use consistent_hash::ConsistentHash;
pub use explain::{ExplainedCheck, ExplainedEjection, ExplainedInstance, Explanation, WeightStep};
pub use key::Key;
pub(crate) use lease::Lease;
pub use least_connections::LeastConnections;
pub use options::BalancerOptions;
pub use p2c_peak_ewma::P2cPeakEwma;
pub(crate) use pick::Pick;
pub use random::Random;
pub use round_robin::RoundRobin;
pub use smooth_weighted_round_robin::SmoothWeightedRoundRobin;
pub use strategy::{Chooser, Strategy, strategy_named};
pub(crate) use strategy::{StrategyFactory, factory_named};
pub use weighing::Selection;
pub use weighted_random::WeightedRandom;

/// The message of a panic in a function of the application.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> Arc<str> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => (*text).into(),
        (_, Some(text)) => text.as_str().into(),
        _ => "no message".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_its_text() {
        let panics: [Box<dyn Any + Send>; 3] = [
            Box::new("a text"),
            Box::new("a string".to_owned()),
            Box::new(5),
        ];
        let messages = panics.each_ref().map(|panic| panic_message(&**panic));
        assert_eq!(
            messages.each_ref().map(|it| &**it),
            ["a text", "a string", "no message"]
        );
    }
}
