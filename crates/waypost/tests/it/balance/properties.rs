//! Properties that hold in random sequences of updates, picks and outcomes.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::advance;
use waypost::balance::{BalancerOptions, Key, RoundRobin, Selection, strategy_named};
use waypost::outlier::OutlierDetection;
use waypost::{Health, Instance, Lease, Weight};

use super::fixture::{Fixture, STRATEGIES, instance, many, settle};

#[tokio::test(start_paused = true)]
async fn picks_are_valid_and_counts_add_up_in_random_sequences() {
    for seed in 0..40 {
        run(seed).await;
    }
}

async fn run(seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let mut options = BalancerOptions::default();
    if rng.bool() {
        options = options.zone("a");
    }
    if rng.bool() {
        options = options.slow_start(Duration::from_secs(20));
    }
    if rng.bool() {
        options = options.subset(30, "me");
    }
    let mut instances = answer(&mut rng);
    let outliers = OutlierDetection::default();
    let fixture = Fixture::with(instances.clone(), RoundRobin::new(), options, outliers).await;
    let mut leases: Vec<Lease> = Vec::new();
    for step in 0..150 {
        match rng.u8(..10) {
            0 => {
                instances = answer(&mut rng);
                fixture.update(instances.clone()).await;
            }
            1 => {
                advance(Duration::from_secs(rng.u64(1..50))).await;
                settle().await;
            }
            2 => {
                let name = STRATEGIES[rng.usize(..STRATEGIES.len())];
                fixture.balancer.set_strategy(strategy_named(name).unwrap());
            }
            3 | 4 if !leases.is_empty() => {
                let lease = leases.swap_remove(rng.usize(..leases.len()));
                match rng.u8(..5) {
                    0 => lease.succeeded(),
                    1 => lease.rejected(rng.bool().then_some(Duration::from_secs(3))),
                    2 => {}
                    _ => lease.failed(),
                }
                settle().await;
            }
            _ => {
                let picked = if rng.bool() {
                    fixture.balancer.pick()
                } else {
                    fixture.balancer.pick_for(Key::new([rng.u8(..)]))
                };
                let context = format!("seed {seed}, step {step}");
                let usable = instances.iter().any(|i| i.health() != Health::Critical);
                assert_eq!(picked.is_ok(), usable, "{context}");
                let Ok(pick) = picked else { continue };
                let known = instances.iter().find(|i| i.id() == pick.id());
                let known = known.unwrap_or_else(|| panic!("{context}: {pick:?} was removed"));
                assert!(known.health() != Health::Critical, "{context}");
                let better = instances
                    .iter()
                    .any(|i| i.health().takes_traffic() && !i.weight().is_drained());
                assert!(!better || !known.weight().is_drained(), "{context}");
                leases.push(pick.lease());
            }
        }
        check(&fixture, &leases, &format!("seed {seed}, step {step}"));
    }
}

fn check(fixture: &Fixture, leases: &[Lease], context: &str) {
    let mut held: BTreeMap<&str, usize> = BTreeMap::new();
    for lease in leases {
        *held.entry(lease.id().as_str()).or_default() += 1;
    }
    let explanation = fixture.balancer.explain();
    let mut shares = 0.0;
    for instance in &explanation.instances {
        // An instance that was removed and added again starts at 0, so it may count less.
        let most = held.get(instance.id.as_str()).copied().unwrap_or(0);
        assert!(instance.in_flight <= most, "{context}: {}", instance.id);
        assert_eq!(
            instance.share > 0.0,
            instance.selection == Selection::Used,
            "{context}"
        );
        shares += instance.share;
    }
    let some = explanation.error.is_none();
    assert!(
        (shares - f64::from(u8::from(some))).abs() < 1e-6,
        "{context}: {shares}"
    );
    assert_eq!(explanation.counters.prepare_failed, 0, "{context}");
}

fn answer(rng: &mut Rng) -> Vec<Arc<Instance>> {
    let count = match rng.u8(..4) {
        0 => rng.usize(..4),
        1 => rng.usize(100..150),
        _ => rng.usize(1..20),
    };
    let mut all = Vec::new();
    for index in 0..count {
        if rng.u8(..5) == 0 {
            continue;
        }
        let weight = [0, 1, 1, 1, 5, 65_535][rng.usize(..6)];
        let zone = ["a", "b", "c"][rng.usize(..3)];
        let health = match rng.u8(..10) {
            0 => Health::Critical,
            1 => Health::Draining,
            _ => Health::Passing,
        };
        all.push(instance(&format!("i{index:03}"), |i| {
            i.weight(Weight::new(weight)).zone(zone).health(health)
        }));
    }
    rng.shuffle(&mut all);
    all
}

/// Each core has its own counter, and a lease may end on another core than it began on.
#[tokio::test]
async fn in_flight_counts_are_exact_when_leases_move_between_threads() {
    for (name, count) in [
        ("least_connections", 100),
        ("p2c_peak_ewma", 2_000),
        ("round_robin", 3),
    ] {
        let fixture = Fixture::new(many(count), RoundRobin::new()).await;
        let balancer = &fixture.balancer;
        balancer.set_strategy(strategy_named(name).unwrap());
        let in_flight = || {
            let snapshot = balancer.snapshot();
            let endpoints = snapshot.endpoints().iter();
            endpoints
                .map(|endpoint| endpoint.in_flight())
                .sum::<usize>()
        };
        let held: Vec<Lease> = std::thread::scope(|scope| {
            let (leases, taken) = mpsc::channel();
            for _ in 0..3 {
                let leases = leases.clone();
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        leases.send(balancer.pick().unwrap().lease()).unwrap();
                    }
                });
            }
            drop(leases);
            // Every fourth lease is held; the others end here.
            let keep = |(place, lease)| (place % 4 == 0).then_some(lease);
            taken.into_iter().enumerate().filter_map(keep).collect()
        });
        assert_eq!((held.len(), in_flight()), (1_500, 1_500), "{name}");
        std::thread::spawn(move || drop(held)).join().unwrap();
        assert_eq!(in_flight(), 0, "{name}");
    }
}
