//! Weights before the strategy: zones, slow start, subsets, drained instances. They are the same for
//! all strategies.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::advance;
use waypost::Health;
use waypost::balance::{
    BalancerOptions, Random, RoundRobin, Selection, WeightedRandom, strategy_named,
};
use waypost::outlier::OutlierDetection;

use super::fixture::{Fixture, STRATEGIES, instance, many, plain, settle, weighted};

fn zoned(zones: &[(&str, usize)]) -> Vec<std::sync::Arc<waypost::Instance>> {
    let of = |(zone, count): &(&str, usize)| {
        let zone = zone.to_string();
        (0..*count)
            .map(move |index| instance(&format!("{zone}-{index}"), |i| i.zone(zone.clone())))
            .collect::<Vec<_>>()
    };
    zones.iter().flat_map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn every_strategy_excludes_drained_and_critical_instances() {
    for name in STRATEGIES {
        let mut instances = weighted(&[("a", 3), ("b", 1), ("drained", 0)]);
        instances.push(instance("draining", |i| i.health(Health::Draining)));
        instances.push(instance("critical", |i| i.health(Health::Critical)));
        let fixture = Fixture::new(instances, RoundRobin::new()).await;
        fixture.balancer.set_strategy(strategy_named(name).unwrap());
        let counts = fixture.counts(1_000);
        let picked: Vec<_> = counts.keys().map(String::as_str).collect();
        assert_eq!(picked, ["a", "b"], "{name}");
        // All drained, a single one, all critical, none.
        fixture
            .update(weighted(&[("drained", 0), ("drained-2", 0)]))
            .await;
        assert_eq!(fixture.counts(100).len(), 2, "{name}");
        fixture.update(plain(&["only"])).await;
        assert_eq!(fixture.pick(), "only", "{name}");
        fixture
            .update(vec![instance("critical", |i| i.health(Health::Critical))])
            .await;
        assert!(fixture.balancer.pick().is_err(), "{name}");
        fixture.update(Vec::new()).await;
        assert!(fixture.balancer.pick().is_err(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn invalid_weights_count_as_drained() {
    let strategy = WeightedRandom::by(|instance| match instance.id().as_str() {
        "nan" => f64::NAN,
        "infinite" => f64::INFINITY,
        "negative" => -1.0,
        "zero" => 0.0,
        _ => 1e300,
    });
    let ids = ["fine", "infinite", "nan", "negative", "zero"];
    let fixture = Fixture::new(plain(&ids), strategy).await;
    assert_eq!(fixture.counts(100)["fine"], 100);
    assert_eq!(fixture.selection("nan"), Selection::Drained);
}

#[tokio::test(start_paused = true)]
async fn the_local_zone_is_preferred_and_spills_over_in_proportion() {
    let options = || BalancerOptions::default().zone("a");
    let off = OutlierDetection::default;
    for name in STRATEGIES {
        let fixture = Fixture::with(
            zoned(&[("a", 5), ("b", 5)]),
            RoundRobin::new(),
            options(),
            off(),
        )
        .await;
        fixture.balancer.set_strategy(strategy_named(name).unwrap());
        let counts = fixture.counts(500);
        assert!(
            counts.keys().all(|id| id.starts_with("a-")),
            "{name}: {counts:?}"
        );
    }
    // With two of five left in zone a, 1.4 x 2/5 of the requests stay there.
    let fixture = Fixture::with(
        zoned(&[("a", 5), ("b", 5)]),
        Random::seeded(1),
        options(),
        off(),
    )
    .await;
    assert_eq!(fixture.selection("b-0"), Selection::OtherZone);
    let mut fewer = zoned(&[("a", 5), ("b", 5)]);
    for instance in &mut fewer[..3] {
        let id = instance.id().clone();
        *instance = super::fixture::instance(id.as_str(), |i| i.zone("a").health(Health::Critical));
    }
    fixture.update(fewer).await;
    let counts = fixture.counts(100_000);
    let local: usize = counts
        .iter()
        .filter(|(id, _)| id.starts_with("a-"))
        .map(|(_, n)| n)
        .sum();
    assert!((55_000..57_000).contains(&local), "{local}");
    // A small zone isn't overloaded: one instance of twenty gets 1.4 times its share.
    fixture.update(zoned(&[("a", 1), ("b", 19)])).await;
    let counts = fixture.counts(100_000);
    assert!(
        (12_000..16_000).contains(&counts["a-0"]),
        "{}",
        counts["a-0"]
    );
}

#[tokio::test(start_paused = true)]
async fn slow_start_applies_to_new_instances_but_not_to_the_first_answer() {
    let options = BalancerOptions::default().slow_start(Duration::from_secs(60));
    let outliers = OutlierDetection::default();
    let fixture = Fixture::with(plain(&["a", "b"]), Random::seeded(4), options, outliers).await;
    assert!(fixture.counts(1_000).values().all(|n| *n > 400));
    advance(Duration::from_secs(10)).await;
    fixture.update(plain(&["a", "b", "new"])).await;
    // A tenth of the weight of the others at first, half of it after 30 s, all of it after 60 s.
    let share = || fixture.counts(100_000)["new"];
    assert!((4_300..5_300).contains(&share()), "{}", share());
    for _ in 0..30 {
        advance(Duration::from_secs(1)).await;
        settle().await;
    }
    assert!((18_000..22_000).contains(&share()), "{}", share());
    for _ in 0..31 {
        advance(Duration::from_secs(1)).await;
        settle().await;
    }
    assert!((32_000..35_000).contains(&share()), "{}", share());
}

#[tokio::test(start_paused = true)]
async fn an_instance_warms_up_whenever_it_becomes_healthy() {
    let balancing = BalancerOptions::default().slow_start(Duration::from_secs(60));
    let health = |b: Health| {
        let well = instance("a", |i| i.health(Health::Passing));
        vec![well, instance("b", |i| i.health(b))]
    };
    let outliers = OutlierDetection::default();
    let fixture = Fixture::with(
        health(Health::Critical),
        Random::seeded(7),
        balancing,
        outliers,
    )
    .await;
    let share = || fixture.balancer.explain().instances[1].share;
    // Critical for longer than the window, then healthy for the first time.
    advance(Duration::from_secs(61)).await;
    fixture.update(health(Health::Passing)).await;
    assert!((0.05..0.15).contains(&share()), "{}", share());
    advance(Duration::from_secs(61)).await;
    settle().await;
    assert_eq!(share(), 0.5);
    // And once more.
    fixture.update(health(Health::Critical)).await;
    fixture.update(health(Health::Passing)).await;
    assert!((0.05..0.15).contains(&share()), "{}", share());
    // After an ejection as well.
    advance(Duration::from_secs(61)).await;
    settle().await;
    fixture.fail("b", 5);
    settle().await;
    advance(Duration::from_secs(34)).await;
    settle().await;
    let trial = fixture.balancer.pick().unwrap().lease();
    trial.succeeded();
    settle().await;
    assert!((0.05..0.15).contains(&share()), "{}", share());
}

/// 40 clients with 10 of 200 endpoints each: twice each endpoint.
#[tokio::test(start_paused = true)]
async fn subsets_of_numbered_clients_use_each_endpoint_equally() {
    for (count, size, clients, least, most) in [(200, 10, 40, 2, 2), (205, 10, 40, 1, 2)] {
        let mut used = BTreeMap::<String, usize>::new();
        for client in 0..clients {
            let options = BalancerOptions::default().subset_of(size, client);
            let fixture = Fixture::with(
                many(count),
                RoundRobin::new(),
                options,
                OutlierDetection::default(),
            )
            .await;
            let picked: Vec<_> = fixture.counts(size).into_keys().collect();
            assert_eq!(picked.len(), size);
            for id in &picked {
                *used.entry(id.clone()).or_default() += 1;
            }
            // One endpoint more moves the subset by one endpoint.
            fixture.update(many(count + 1)).await;
            let after: Vec<_> = fixture.counts(size).into_keys().collect();
            let kept = after.iter().filter(|id| picked.contains(id)).count();
            assert!(kept >= size - 1, "client {client} keeps {kept}");
        }
        let counts = used.values();
        assert!(
            counts.clone().min() >= Some(&least) && counts.max() <= Some(&most),
            "{used:?}"
        );
        assert!(used.len() >= count - 5, "{} are used", used.len());
    }
}

#[tokio::test(start_paused = true)]
async fn subsets_spread_clients_over_a_large_service() {
    let outliers = OutlierDetection::default;
    let subset = |client: &str| BalancerOptions::default().subset(20, client);
    let mut used = std::collections::BTreeMap::new();
    for client in 0..50 {
        let options = subset(&format!("client-{client}"));
        let fixture = Fixture::with(many(200), RoundRobin::new(), options, outliers()).await;
        let counts = fixture.counts(200);
        assert_eq!(counts.len(), 20);
        counts
            .into_keys()
            .for_each(|id| *used.entry(id).or_insert(0) += 1);
    }
    // Each instance has five clients on average, and hardly any has none.
    assert!(
        used.len() > 190 && used.values().all(|&clients| clients < 17),
        "{used:?}"
    );

    // When ten are removed, a client only replaces those.
    let fixture = Fixture::with(many(200), RoundRobin::new(), subset("me"), outliers()).await;
    let before = fixture.counts(200);
    fixture.update(many(190)).await;
    let after = fixture.counts(200);
    let kept = after.keys().filter(|id| before.contains_key(*id)).count();
    let left = before.keys().filter(|id| id.as_str() >= "i190").count();
    assert_eq!((after.len(), kept), (20, 20 - left));

    let fixture = Fixture::with(many(99), RoundRobin::new(), subset("me"), outliers()).await;
    assert_eq!(
        fixture.counts(198).len(),
        99,
        "all instances of a small service are used"
    );
}

#[tokio::test(start_paused = true)]
async fn an_explanation_covers_each_instance_and_serializes_to_json() {
    let options = BalancerOptions::default().zone("a");
    let mut instances = zoned(&[("a", 4), ("b", 2)]);
    instances.push(instance("critical", |i| {
        i.zone("a").health(Health::Critical)
    }));
    let outliers = OutlierDetection::default();
    let fixture = Fixture::with(instances, RoundRobin::new(), options, outliers).await;
    fixture.fail("a-1", 5);
    settle().await;
    let explanation = fixture.balancer.explain();
    let selections: Vec<_> = explanation.instances.iter().map(|i| i.selection).collect();
    use Selection::{Critical, Ejected, OtherZone, Used};
    assert_eq!(
        selections,
        [Used, Ejected, Used, Used, OtherZone, OtherZone, Critical]
    );
    let ejected = &explanation.instances[1];
    assert!(ejected.ejection.as_ref().unwrap().seconds_left > Some(26.0));
    let steps: Vec<_> = explanation.instances[0]
        .weights
        .iter()
        .map(|s| s.after)
        .collect();
    assert_eq!(steps, ["registry", "outlier_detection", "zone"]);
    let shares: f64 = explanation.instances.iter().map(|i| i.share).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(
        json["instances"][1]["ejection"]["cause"],
        "consecutive_failures"
    );
    assert_eq!(json["counters"]["ejected_now"], 1);
}
