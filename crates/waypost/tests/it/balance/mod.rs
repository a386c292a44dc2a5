mod active_checks;
mod allocations;
mod fairness;
mod fixture;
mod outliers;
mod properties;
mod simulation;
mod weights;

use waypost::ServiceDiscoveryClient;
use waypost::balance::{Candidates, Chooser, Key, P2cPeakEwma, RoundRobin, Strategy};

use crate::scripted::Scripted;
use fixture::{Fixture, plain, settle};

#[tokio::test(start_paused = true)]
async fn round_robin_takes_each_in_turn_and_keeps_its_place() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::starting_at(1)).await;
    assert_eq!(fixture.picks(4), ["b", "c", "a", "b"]);
    fixture.tell(plain(&["a", "b", "c", "d"])).await;
    // The last one was b, so the next is c.
    assert_eq!(fixture.picks(5), ["c", "d", "a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_second_pick_avoids_what_was_tried() {
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
        // When all were tried there is nothing better than one of them.
        assert!(balancer.pick_except(&tried).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_strategy_can_be_named_and_an_unknown_name_lists_the_known() {
    let script = Scripted::default();
    let named = |name: &str| {
        let builder = ServiceDiscoveryClient::builder().provider(script.clone());
        builder.strategy_named(name).build()
    };
    let client = named("random").unwrap();
    assert_eq!(client.balancer("auth").unwrap().strategy().name(), "random");
    let error = named("best").unwrap_err().to_string();
    assert!(
        error.contains("round_robin, smooth_weighted_round_robin"),
        "{error}"
    );
}

/// The spec's own strategies are functions over instances, so an application can add its own.
#[tokio::test(start_paused = true)]
async fn an_application_brings_its_own_strategy() {
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

#[tokio::test(start_paused = true)]
async fn the_strategy_changes_while_requests_are_in_flight() {
    let fixture = Fixture::new(plain(&["a", "b"]), RoundRobin::starting_at(0)).await;
    let lease = fixture.balancer.pick().unwrap().lease();
    assert_eq!(lease.id().as_str(), "a");
    let least = waypost::balance::strategy_named("least_connections").unwrap();
    fixture.balancer.set_strategy(least);
    assert_eq!(fixture.balancer.strategy().name(), "least_connections");
    // What is in flight at a is known to the new one.
    assert_eq!(fixture.picks(20), ["b"; 20]);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_strategy_that_panics_on_an_update_is_reported_and_the_last_table_stays() {
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
    fixture.tell(plain(&["a", "b", "c"])).await;
    assert_eq!(fixture.pick(), "a");
    assert_eq!(fixture.balancer.counters().prepare_failed, 1);
    // It goes on as soon as it can.
    fixture.tell(plain(&["c", "d"])).await;
    assert_eq!(fixture.pick(), "c");
    // Where there is no last table, any strategy is better than no service.
    let fixture = Fixture::new(plain(&["a", "b", "c"]), AtMostTwo).await;
    assert_eq!(fixture.counts(6).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_fast_failure_never_attracts() {
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
    // Only when it is drawn twice: one of nine.
    assert!(broken < 3_000 / 7, "{broken}");
}

#[tokio::test(start_paused = true)]
async fn a_key_stays_with_its_instance_and_few_move_when_one_leaves() {
    let strategy = waypost::balance::ConsistentHash::new();
    let fixture = Fixture::new(fixture::many(50), strategy).await;
    let homes = || -> Vec<String> {
        let keys = (0..5_000_u32).map(|key| Key::new(key.to_be_bytes()));
        let home = |key| fixture.balancer.pick_for(key).unwrap().id().to_string();
        keys.map(home).collect()
    };
    let before = homes();
    assert_eq!(homes(), before);
    let mut fewer = fixture::many(50);
    let gone = fewer.remove(20);
    fixture.tell(fewer).await;
    let after = homes();
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    let orphans = before.iter().filter(|id| *id == gone.id().as_str()).count();
    assert_eq!(moved, orphans, "only the keys of the one that left");
    assert!((50..200).contains(&orphans), "a fiftieth, about: {orphans}");
}

#[tokio::test(start_paused = true)]
async fn a_hot_key_spills_over_when_its_instance_has_too_much() {
    let fixture = Fixture::new(
        plain(&["a", "b", "c", "d"]),
        waypost::balance::ConsistentHash::new(),
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

#[tokio::test]
async fn nothing_is_left_of_a_dropped_balancer() {
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
