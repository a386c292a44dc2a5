//! Load balancing: strategies, weights, outlier detection and active checks.

mod active_checks;
mod allocations;
mod callbacks;
mod fairness;
mod fixture;
mod leases;
mod outliers;
mod properties;
mod selectors;
mod simulation;
mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use waypost::balance::{
    Candidates, Chooser, Key, P2cPeakEwma, RoundRobin, Strategy, WeightedRandom,
};
use waypost::{Instance, ServiceDiscoveryClient};

use crate::scripted::ScriptedProvider;
use fixture::{Fixture, plain, settle};

#[tokio::test(start_paused = true)]
async fn round_robin_picks_in_turn_and_keeps_its_position_across_updates() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::starting_at(1)).await;
    assert_eq!(fixture.picks(4), ["b", "c", "a", "b"]);
    fixture.update(plain(&["a", "b", "c", "d"])).await;
    // The last pick was b, so the next is c.
    assert_eq!(fixture.picks(5), ["c", "d", "a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn pick_except_avoids_instances_already_tried() {
    let balancer = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new())
        .await
        .balancer;
    for _ in 0..100 {
        let mut tried = Vec::new();
        for _ in 0..3 {
            let pick = balancer.pick_except(&tried).unwrap();
            assert!(!tried.contains(pick.id()));
            tried.push(pick.id().clone());
        }
        // When all were tried, one of them is picked again.
        assert!(balancer.pick_except(&tried).is_ok());
    }
}

/// The strategy rarely picks one of the two accepted instances. After some attempts, one of them is chosen at
/// random by weight.
#[tokio::test(start_paused = true)]
async fn pick_where_chooses_among_a_few_accepted_instances_by_weight() {
    let mut instances = fixture::many(98);
    instances.extend(fixture::weighted(&[("heavy", 9), ("light", 1)]));
    let fixture = Fixture::new(instances, WeightedRandom::new()).await;
    let is_accepted = |instance: &Instance| !instance.id().as_str().starts_with('i');
    let pick = || fixture.balancer.pick_where(is_accepted).unwrap().unwrap();
    let light = (0..4_000).filter(|_| pick().id().as_str() == "light");
    let light = light.count();
    assert!((250..550).contains(&light), "{light} instead of 400");
}

#[tokio::test(start_paused = true)]
async fn strategies_are_chosen_by_name_and_an_unknown_name_is_an_error() {
    let script = ScriptedProvider::default();
    let named = |name: &str| {
        let builder = ServiceDiscoveryClient::builder().provider(script.clone());
        builder.strategy_named(name).build()
    };
    let client = named("random").unwrap();
    assert_eq!(client.balancer("auth").unwrap().strategy().name(), "random");
    for name in fixture::STRATEGIES {
        let strategy = waypost::balance::strategy_named(name).unwrap();
        assert_eq!(strategy.name(), name);
    }
    let error = named("best").unwrap_err().to_string();
    assert!(
        error.contains("round_robin, smooth_weighted_round_robin"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_application_can_implement_a_strategy() {
    #[derive(Debug)]
    struct Last;

    impl Strategy for Last {
        fn name(&self) -> &'static str {
            "last"
        }

        fn prepare(&self, _: &Candidates) -> Box<Chooser> {
            Box::new(|candidates, _| candidates.len() - 1)
        }
    }

    let fixture = Fixture::new(plain(&["a", "b"]), Last).await;
    assert_eq!(fixture.picks(2), ["b", "b"]);
}

/// A strategy may return any index, for example from a counter.
#[tokio::test(start_paused = true)]
async fn an_index_beyond_the_last_endpoint_wraps_around() {
    #[derive(Debug)]
    struct Counter;

    impl Strategy for Counter {
        fn name(&self) -> &'static str {
            "counter"
        }

        fn prepare(&self, _: &Candidates) -> Box<Chooser> {
            let next = AtomicUsize::new(0);
            Box::new(move |_, _| next.fetch_add(1, Ordering::Relaxed))
        }
    }

    let fixture = Fixture::new(plain(&["a", "b", "c"]), Counter).await;
    assert_eq!(fixture.picks(7), ["a", "b", "c", "a", "b", "c", "a"]);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_kept_when_the_strategy_changes() {
    let fixture = Fixture::new(plain(&["a", "b"]), RoundRobin::starting_at(0)).await;
    let lease = fixture.balancer.pick().unwrap().lease();
    assert_eq!(lease.id().as_str(), "a");
    let least = waypost::balance::strategy_named("least_connections").unwrap();
    fixture.balancer.set_strategy(least);
    assert_eq!(fixture.balancer.strategy().name(), "least_connections");
    // The new strategy sees the request in flight at a.
    assert_eq!(fixture.picks(20), ["b"; 20]);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_strategy_that_panics_on_an_update_is_reported_and_the_last_picker_stays() {
    #[derive(Debug)]
    struct AtMostTwo;

    impl Strategy for AtMostTwo {
        fn name(&self) -> &'static str {
            "at_most_two"
        }

        fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
            assert!(candidates.len() <= 2, "only two are supported");
            Box::new(|_, _| 0)
        }
    }

    let fixture = Fixture::new(plain(&["a", "b"]), AtMostTwo).await;
    fixture.update(plain(&["a", "b", "c"])).await;
    assert_eq!(fixture.pick(), "a");
    assert_eq!(fixture.balancer.counters().prepare_failed, 1);
    // Updates continue once the strategy succeeds again.
    fixture.update(plain(&["c", "d"])).await;
    assert_eq!(fixture.pick(), "c");
    // Without a previous picker, round robin is used.
    let fixture = Fixture::new(plain(&["a", "b", "c"]), AtMostTwo).await;
    assert_eq!(fixture.counts(6).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn fast_failures_do_not_attract_requests() {
    let fixture = Fixture::with(
        plain(&["fast-but-broken", "good", "well"]),
        P2cPeakEwma::seeded(3),
        waypost::balance::BalancerOptions::default(),
        waypost::outlier::OutlierDetection::off(),
    )
    .await;
    let mut broken = 0;
    for _ in 0..3_000 {
        let lease = fixture.balancer.pick().unwrap().lease();
        if lease.id().as_str() == "fast-but-broken" {
            broken += 1;
            lease.failed();
        } else {
            settle().await;
            lease.succeeded();
        }
    }
    // Picked only if both choices fall on it: one of nine.
    assert!(broken < 3_000 / 7, "{broken}");
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_instance_and_few_keys_move_when_an_instance_is_removed() {
    let strategy = waypost::balance::ConsistentHash::new();
    let fixture = Fixture::new(fixture::many(50), strategy).await;
    let owners = || -> Vec<String> {
        let keys = (0..5_000_u32).map(|key| Key::new(key.to_be_bytes()));
        let owner = |key| fixture.balancer.pick_for(key).unwrap().id().to_string();
        keys.map(owner).collect()
    };
    let before = owners();
    assert_eq!(owners(), before);
    let mut fewer = fixture::many(50);
    let removed = fewer.remove(20);
    fixture.update(fewer).await;
    let after = owners();
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    let orphaned = before
        .iter()
        .filter(|id| *id == removed.id().as_str())
        .count();
    // Hardly any key moves except those of the removed instance.
    assert!(
        moved - orphaned <= orphaned / 50 + 2,
        "{moved} of {orphaned}"
    );
    assert!(
        (50..200).contains(&orphaned),
        "about a fiftieth: {orphaned}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_spills_over_when_its_instance_is_overloaded() {
    let fixture = Fixture::new(
        plain(&["a", "b", "c", "d"]),
        waypost::balance::ConsistentHash::new().with_bound(1.25),
    )
    .await;
    let mut leases = Vec::new();
    for _ in 0..100 {
        leases.push(fixture.balancer.pick_for(Key::new("hot")).unwrap().lease());
    }
    let most = leases
        .iter()
        .map(|lease| lease.endpoint().in_flight())
        .max();
    // A quarter more than the average of 25, rounded up.
    assert!(most.unwrap() <= 33, "{most:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_with_its_instance_up_to_the_bound() {
    let bounded = waypost::balance::ConsistentHash::new().with_bound(1.25);
    let fixture = Fixture::new(plain(&["a", "b"]), bounded).await;
    let lease = |key| fixture.balancer.pick_for(key).unwrap().lease();
    let keys = || (0..100_u32).map(|key| Key::new(key.to_be_bytes()));
    let owned_by = |id: &str| keys().find(|key| lease(*key).id().as_str() == id).unwrap();
    let (a, b) = (owned_by("a"), owned_by("b"));
    let _leases = [a, b, a].map(lease);
    // With this request, four are in flight, two per instance on average. So a may have 1.25 × 2, rounded up: 3.
    assert_eq!(lease(a).id().as_str(), "a");
}

/// The share of keys that go elsewhere after the instances changed.
async fn moved_keys(before: Vec<Arc<Instance>>, after: Vec<Arc<Instance>>) -> f64 {
    let fixture = Fixture::new(before, waypost::balance::ConsistentHash::new()).await;
    let owners = || -> Vec<String> {
        let keys = (0..20_000_u32).map(|key| Key::new(key.to_be_bytes()));
        let owner = |key| fixture.balancer.pick_for(key).unwrap().id().to_string();
        keys.map(owner).collect()
    };
    let earlier = owners();
    fixture.update(after).await;
    let later = owners();
    let moved = earlier.iter().zip(&later).filter(|(a, b)| a != b).count();
    moved as f64 / earlier.len() as f64
}

#[tokio::test(start_paused = true)]
async fn one_more_instance_takes_its_share_of_the_keys_and_moves_no_others() {
    for count in [3, 127, 255, 256, 257, 1_000, 2_048] {
        let moved = moved_keys(fixture::many(count), fixture::many(count + 1)).await;
        let ideal = 1.0 / (count + 1) as f64;
        assert!(
            moved <= 1.7 * ideal + 0.000_5,
            "{count}: {moved} instead of {ideal}"
        );
    }
    let uneven = |count: usize| -> Vec<_> {
        let weight = |index: usize| waypost::Weight::new((index % 10 + 1) as u16);
        let of = |index| fixture::instance(&format!("i{index:03}"), |i| i.weight(weight(index)));
        (0..count).map(of).collect()
    };
    let moved = moved_keys(uneven(50), uneven(51)).await;
    assert!(moved <= 0.01, "{moved} instead of 1 of 276");
}

#[tokio::test(start_paused = true)]
async fn keys_are_shared_out_by_weight() {
    let instances = fixture::weighted(&[("heavy", 99), ("light", 1)]);
    let fixture = Fixture::new(instances, waypost::balance::ConsistentHash::new()).await;
    let keys = (0..50_000_u32).map(|key| Key::new(key.to_be_bytes()));
    let owned =
        keys.filter(|key| fixture.balancer.pick_for(*key).unwrap().id().as_str() == "light");
    let share = owned.count() as f64 / 50_000.0;
    assert!((0.008..0.012).contains(&share), "{share}");
}

#[tokio::test(start_paused = true)]
async fn overlapping_requests_with_one_key_go_to_one_instance() {
    let fixture = Fixture::new(fixture::many(10), waypost::balance::ConsistentHash::new()).await;
    let pick = || {
        fixture
            .balancer
            .pick_for(Key::new("cart-7"))
            .unwrap()
            .lease()
    };
    let (first, second) = (pick(), pick());
    assert_eq!(first.id(), second.id());
}

/// Half of the instances weigh 1, half 9; each request lasts until ten are in flight per weight.
#[tokio::test(start_paused = true)]
async fn weights_hold_under_load_for_any_number_of_instances() {
    for count in [2, 16, 32, 33, 34, 200] {
        let weight =
            |index: usize| waypost::Weight::new(if index.is_multiple_of(2) { 1 } else { 9 });
        let of = |index| fixture::instance(&format!("i{index:03}"), |i| i.weight(weight(index)));
        let instances: Vec<_> = (0..count).map(of).collect();
        for name in ["least_connections", "p2c_peak_ewma"] {
            let strategy = waypost::balance::strategy_named(name).unwrap();
            let fixture = Fixture::new(instances.clone(), Boxed(strategy)).await;
            let mut held = std::collections::VecDeque::new();
            let (mut heavy, rounds) = (0, count * 200);
            for _ in 0..rounds {
                if held.len() == count * 10 {
                    held.pop_front();
                }
                let lease = fixture.balancer.pick().unwrap().lease();
                heavy += usize::from(lease.weight() == waypost::Weight::new(9));
                lease.succeeded();
                held.push_back(lease);
            }
            let share = heavy as f64 / rounds as f64;
            assert!((0.87..0.93).contains(&share), "{name}, {count}: {share}");
        }
    }
}

/// A strategy by name, for fixtures that take one by value.
#[derive(Debug)]
struct Boxed(Box<dyn waypost::balance::Strategy>);

impl waypost::balance::Strategy for Boxed {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn weight(&self, endpoint: &waypost::snapshot::Endpoint) -> f64 {
        self.0.weight(endpoint)
    }

    fn prepare(&self, candidates: &waypost::balance::Candidates) -> Box<waypost::balance::Chooser> {
        self.0.prepare(candidates)
    }
}

#[tokio::test(start_paused = true)]
async fn a_weight_function_that_panics_falls_back_to_the_weights_in_the_registry() {
    let strategy = waypost::balance::WeightedRandom::by(|instance| match instance.id().as_str() {
        "b" => panic!("no weight for b"),
        _ => 1.0,
    });
    let instances = fixture::weighted(&[("a", 1), ("b", 3)]);
    let fixture = Fixture::new(instances, strategy.with_seed(1)).await;
    let counts = fixture.counts(4_000);
    assert!((2_800..3_200).contains(&counts["b"]), "{counts:?}");
    assert!(fixture.balancer.counters().prepare_failed > 0);
    assert_eq!(fixture.balancer.explain().instances.len(), 2);
    // Later changes still arrive.
    fixture.update(plain(&["a", "c"])).await;
    assert_eq!(fixture.counts(100).len(), 2);
}

#[tokio::test]
async fn dropping_a_balancer_ends_its_tasks() {
    let fixture = Fixture::new(plain(&["a"]), RoundRobin::new()).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    let directory = waypost::directory::Directory::new(std::sync::Arc::new(fixture.script.clone()));
    let name = crate::scripted::auth();
    let more: Vec<_> = (0..100)
        .map(|_| waypost::Balancer::new(&directory, &name, Box::new(RoundRobin::new())))
        .collect();
    assert!(tasks() > before + 99);
    drop((more, directory));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    while tasks() > before {
        assert!(tokio::time::Instant::now() < deadline, "{} tasks", tasks());
        tokio::task::yield_now().await;
    }
}
