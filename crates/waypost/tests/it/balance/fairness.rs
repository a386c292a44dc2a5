//! How strategies distribute picks, with fixed seeds, so that results are the same each time.

use std::collections::BTreeMap;

use waypost::Weight;
use waypost::balance::{
    LeastConnections, P2cPeakEwma, Random, RoundRobin, SmoothWeightedRoundRobin, WeightedRandom,
};

use super::fixture::{Fixture, chi_square, instance, many, plain, weighted};

#[tokio::test(start_paused = true)]
async fn random_picks_are_uniform() {
    let fixture = Fixture::new(plain(&["a", "b", "c", "d"]), Random::seeded(7)).await;
    let even = ["a", "b", "c", "d"].map(|id| (id, 1.0));
    // With three degrees of freedom, one seed in a thousand is above 16.3.
    let chi_square = chi_square(&fixture.counts(40_000), &even);
    assert!(chi_square < 16.3, "{chi_square}");
}

#[tokio::test(start_paused = true)]
async fn weighted_random_follows_the_weights() {
    let weights = [("a", 1), ("b", 2), ("c", 7), ("d", 65_535), ("e", 30_000)];
    let strategy = WeightedRandom::new().with_seed(7);
    let fixture = Fixture::new(weighted(&weights), strategy).await;
    let counts = fixture.counts(1_000_000);
    let shares = weights.map(|(id, weight)| (id, f64::from(weight)));
    // Those of small weight are too rare for the statistic, so they are counted together.
    let small: usize = ["a", "b", "c"]
        .iter()
        .filter_map(|id| counts.get(*id))
        .sum();
    assert!((60..=160).contains(&small), "{small} of 105");
    let chi_square = chi_square(&counts, &shares[3..]);
    assert!(chi_square < 10.8 + 1.0, "{chi_square}");
}

/// The example of the specification: version 2.0.0 gets twice the traffic.
#[tokio::test(start_paused = true)]
async fn a_weight_function_prefers_the_newer_version() {
    let of = |id: &str, version: &'static str| instance(id, |i| i.version(version));
    let instances = vec![
        of("new", "2.0.0"),
        of("old-1", "1.0.0"),
        of("old-2", "1.9.9"),
    ];
    let strategy = WeightedRandom::by(|instance| match instance.version() {
        Some("2.0.0") => 10.0,
        _ => 5.0,
    });
    let fixture = Fixture::new(instances, strategy.with_seed(11)).await;
    let counts = fixture.counts(100_000);
    let expected = [("new", 10.0), ("old-1", 5.0), ("old-2", 5.0)];
    println!("of 100000 picks: {counts:?}");
    assert!(chi_square(&counts, &expected) < 13.8, "{counts:?}");
    // The explanation shows the shares.
    let explanation = fixture.balancer.explain();
    let shares: Vec<f64> = explanation.instances.iter().map(|i| i.share).collect();
    assert_eq!(shares, [0.5, 0.25, 0.25]);
}

#[tokio::test(start_paused = true)]
async fn round_robin_cycles_are_exact() {
    for count in [1, 2, 3, 100] {
        let fixture = Fixture::new(many(count), RoundRobin::starting_at(0)).await;
        let counts = fixture.counts(count * 50);
        assert_eq!(counts.len(), count);
        assert!(counts.values().all(|&n| n == 50), "{counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn smooth_weighted_cycles_are_exact_and_smooth() {
    let instances = weighted(&[("a", 50), ("b", 10), ("c", 10)]);
    let fixture = Fixture::new(instances, SmoothWeightedRoundRobin::starting_at(0)).await;
    let picks = fixture.picks(7_000);
    for cycle in picks.chunks(7) {
        let mut cycle = cycle.to_vec();
        cycle.sort();
        assert_eq!(cycle, ["a", "a", "a", "a", "a", "b", "c"]);
    }
    let longest = picks.chunk_by(|a, b| a == b).map(<[_]>::len).max();
    assert!(longest <= Some(4), "{longest:?} in a row");
    // An instance of weight 1 of 7 is picked every seventh time.
    let places: Vec<_> = (0..picks.len())
        .filter(|&place| picks[place] == "b")
        .collect();
    assert!(places.windows(2).all(|pair| pair[1] - pair[0] == 7));
}

#[tokio::test(start_paused = true)]
async fn large_weights_do_not_make_schedules_long() {
    let heavy: Vec<_> = (0..1_000)
        .map(|index| {
            let weight = Weight::new(65_535 - index);
            instance(&format!("i{index:04}"), |i| i.weight(weight))
        })
        .collect();
    let fixture = Fixture::new(heavy, SmoothWeightedRoundRobin::new()).await;
    let counts = fixture.counts(64_000);
    assert_eq!(counts.len(), 1_000);
    assert!(counts.values().all(|&n| (60..=68).contains(&n)));
}

#[tokio::test(start_paused = true)]
async fn each_thread_has_exact_round_robin_cycles() {
    let fixture = Fixture::new(many(8), RoundRobin::new()).await;
    let counts: BTreeMap<String, usize> = std::thread::scope(|scope| {
        let turns = scope.spawn(|| fixture.counts(800)).join();
        turns.unwrap()
    });
    assert!(counts.values().all(|&n| n == 100), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn least_connections_picks_the_fewest_requests_in_flight() {
    let fixture = Fixture::new(many(20), LeastConnections::seeded(5)).await;
    let leases: Vec<_> = (0..100)
        .map(|_| fixture.balancer.pick().unwrap().lease())
        .collect();
    // Exact for a few endpoints: all have the same number of requests in flight.
    assert!(leases.iter().all(|lease| lease.endpoint().in_flight() == 5));

    let fixture = Fixture::new(many(500), LeastConnections::seeded(5)).await;
    let leases: Vec<_> = (0..5_000)
        .map(|_| fixture.balancer.pick().unwrap().lease())
        .collect();
    let longest = leases
        .iter()
        .map(|lease| lease.endpoint().in_flight())
        .max();
    // With two choices the longest queue stays close to the average of 10; with random picks it
    // would be about 20.
    assert!(longest.unwrap() <= 14, "{longest:?}");
}

/// Scaling load by weight would give 0.66 instead (tower-rs/tower#696).
#[tokio::test(start_paused = true)]
async fn two_choices_follow_weights_of_990_5_and_5() {
    let instances = weighted(&[("big", 990), ("small-1", 5), ("small-2", 5)]);
    let fixture = Fixture::new(instances, P2cPeakEwma::seeded(1)).await;
    let counts = fixture.counts(100_000);
    let big = counts["big"] as f64 / 100_000.0;
    assert!((0.98..=0.995).contains(&big), "{big}");
}

#[tokio::test(start_paused = true)]
async fn round_robin_starts_at_a_random_position_so_that_clients_do_not_move_in_step() {
    let mut first = BTreeMap::new();
    for _ in 0..200 {
        let fixture = Fixture::new(many(8), RoundRobin::new()).await;
        *first.entry(fixture.pick()).or_insert(0) += 1;
    }
    assert_eq!(first.len(), 8, "{first:?}");
}
