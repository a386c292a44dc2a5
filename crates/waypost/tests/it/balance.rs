use std::{collections::BTreeMap, sync::Arc};

use tokio::time::sleep;
use waypost::{
    Balancer, Candidates, Chooser, Directory, Random, RoundRobin, ServiceDiscoveryClient, Strategy,
};

use crate::scripted::{Scripted, auth, instances};

async fn balancer(script: &Scripted, ids: &[&str], strategy: impl Strategy) -> Balancer {
    script.greet(instances(ids));
    let directory = Directory::new(Arc::new(script.clone()));
    let balancer = Balancer::new(&directory, &auth(), Box::new(strategy));
    balancer.ready().await.unwrap();
    balancer
}

fn picks(balancer: &Balancer, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| balancer.pick().unwrap().id().to_string())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn round_robin_takes_each_in_turn_and_keeps_its_place() {
    let script = Scripted::default();
    let balancer = balancer(&script, &["a", "b", "c"], RoundRobin::starting_at(1)).await;
    assert_eq!(picks(&balancer, 4), ["b", "c", "a", "b"]);
    script.tell(instances(&["a", "b", "c", "d"]));
    sleep(std::time::Duration::from_millis(1)).await;
    // The last one was b, so the next is c.
    assert_eq!(picks(&balancer, 5), ["c", "d", "a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn random_takes_each_as_often_as_the_others() {
    let ids = ["a", "b", "c", "d"];
    let balancer = balancer(&Scripted::default(), &ids, Random::seeded(7)).await;
    let mut counts = BTreeMap::new();
    for id in picks(&balancer, 40_000) {
        *counts.entry(id).or_insert(0_f64) += 1.0;
    }
    // Chi-square with three degrees of freedom: above 16.3 in one of a thousand seeds.
    let chi_square: f64 = counts
        .values()
        .map(|n| (n - 10_000.0).powi(2) / 10_000.0)
        .sum();
    assert!(
        counts.len() == 4 && chi_square < 16.3,
        "{counts:?}: {chi_square}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_pick_avoids_what_was_tried() {
    let balancer = balancer(&Scripted::default(), &["a", "b", "c"], RoundRobin::new()).await;
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

    let balancer = balancer(&Scripted::default(), &["a", "b"], Last).await;
    assert_eq!(picks(&balancer, 2), ["b", "b"]);
}
