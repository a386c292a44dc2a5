//! Counts allocations on the pick path.

use allocation_counter::measure;
use waypost::balance::{BalancerOptions, Key, RoundRobin, strategy_named};
use waypost::outlier::OutlierDetection;

use super::fixture::{Fixture, STRATEGIES, many};

/// With weights, zones and outlier detection enabled.
#[tokio::test]
async fn picks_and_leases_do_not_allocate() {
    for (name, count) in STRATEGIES
        .into_iter()
        .flat_map(|name| [(name, 3), (name, 500)])
    {
        let options = BalancerOptions::default().zone("a");
        let outliers = OutlierDetection::default();
        let fixture = Fixture::with(many(count), RoundRobin::new(), options, outliers).await;
        let balancer = &fixture.balancer;
        balancer.set_strategy(strategy_named(name).unwrap());
        let round = || {
            let pick = balancer.pick().unwrap();
            let lease = pick.lease();
            assert_eq!(pick.port(), 80);
            lease.succeeded();
            drop(balancer.pick_for(Key::new("user")).unwrap().lease());
        };
        // The first use on a thread initializes its thread-local state.
        round();
        let allocated = measure(|| (0..1_000).for_each(|_| round()));
        assert_eq!(allocated.count_total, 0, "{name} of {count}: {allocated:?}");
    }
}
