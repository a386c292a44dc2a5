//! Leases that end without an outcome, and their effect on the endpoint.

use std::time::Duration;

use tokio::time::{advance, sleep, timeout};
use waypost::balance::{
    BalancerOptions, LeastConnections, P2cPeakEwma, Random, RoundRobin, Selection, Strategy,
};
use waypost::outlier::{BalanceEvent, OutlierDetection};

use super::fixture::{Fixture, many, plain, settle};

/// A caller that gives up after `limit`; only `hanging` doesn't answer at once.
async fn call(fixture: &Fixture, hanging: &str, limit: Duration) -> bool {
    let attempt = async {
        let lease = fixture.balancer.pick().unwrap().lease();
        if lease.id().as_str() == hanging {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(5)).await;
        lease.succeeded();
    };
    timeout(limit, attempt).await.is_ok()
}

/// Ten instances, one of which hangs, 200 calls a second for 60 s, each with a limit of 500 ms: the
/// share of calls that fail after the first third.
async fn failed_share(strategy: impl Strategy) -> f64 {
    let fixture = Fixture::new(many(10), strategy).await;
    let limit = Duration::from_millis(500);
    let calls = futures_util::future::join_all((0..12_000_u32).map(|number| {
        let fixture = &fixture;
        async move {
            sleep(Duration::from_millis(5) * number).await;
            call(fixture, "i003", limit).await
        }
    }));
    let results = calls.await;
    let later = &results[4_000..];
    later.iter().filter(|ok| !**ok).count() as f64 / later.len() as f64
}

#[tokio::test(start_paused = true)]
async fn callers_with_a_time_limit_rarely_reach_a_hanging_instance() {
    for (name, share) in [
        ("p2c", failed_share(P2cPeakEwma::seeded(3)).await),
        (
            "least connections",
            failed_share(LeastConnections::seeded(3)).await,
        ),
        (
            "round robin",
            failed_share(RoundRobin::starting_at(0)).await,
        ),
        ("random", failed_share(Random::seeded(3)).await),
    ] {
        assert!(share <= 0.001, "{name}: {share}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_trial_ejects_again_and_no_further_trials_follow_it() {
    let fixture = Fixture::new(plain(&["a", "b", "c", "d"]), RoundRobin::new()).await;
    fixture.fail("b", 5);
    settle().await;
    advance(Duration::from_secs(34)).await;
    settle().await;
    assert_eq!(fixture.selection("b"), Selection::Probing);
    // Like `curl -m 1`, one after another, while `b` hangs.
    let mut lost = 0;
    for _ in 0..20 {
        lost += usize::from(!call(&fixture, "b", Duration::from_secs(1)).await);
        settle().await;
    }
    assert_eq!(lost, 1);
    assert_eq!(fixture.selection("b"), Selection::Ejected);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_dropped_at_once_leaves_a_pause_before_the_next() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    fixture.fail("b", 5);
    settle().await;
    advance(Duration::from_secs(34)).await;
    settle().await;
    let picks = fixture.picks(1);
    assert_eq!(picks, ["b"]);
    assert!(!fixture.picks(30).contains(&"b".to_owned()));
    advance(Duration::from_secs(5)).await;
    assert_eq!(fixture.picks(1), ["b"]);
}

#[tokio::test(start_paused = true)]
async fn short_leases_without_an_outcome_eject_no_endpoint() {
    let fixture = Fixture::new(plain(&["a", "b"]), RoundRobin::new()).await;
    for _ in 0..100 {
        let lease = fixture.balancer.pick().unwrap().lease();
        sleep(Duration::from_millis(99)).await;
        drop(lease);
    }
    assert_eq!(fixture.balancer.counters().ejected_consecutive_failures, 0);
}

/// Each is held for longer than a request usually takes, as by a caller that gives up waiting.
#[tokio::test(start_paused = true)]
async fn five_consecutive_abandoned_leases_eject_and_four_do_not() {
    let fixture = Fixture::new(plain(&["a", "b"]), RoundRobin::new()).await;
    for expected in [Selection::Used; 4].into_iter().chain([Selection::Ejected]) {
        while call(&fixture, "b", Duration::from_secs(1)).await {}
        settle().await;
        assert_eq!(fixture.selection("b"), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_lease_raises_the_latency_and_never_lowers_it() {
    let fixture = Fixture::new(plain(&["a"]), P2cPeakEwma::seeded(1)).await;
    let latency = || {
        let pick = fixture.balancer.pick().unwrap();
        pick.endpoint().latency().unwrap_or_default()
    };
    let lease = fixture.balancer.pick().unwrap().lease();
    sleep(Duration::from_secs(2)).await;
    drop(lease);
    assert!(latency() >= Duration::from_millis(1_999), "{:?}", latency());
    drop(fixture.balancer.pick().unwrap().lease());
    assert!(latency() >= Duration::from_millis(1_999), "{:?}", latency());
}

#[tokio::test(start_paused = true)]
async fn an_ejection_that_the_limit_prevents_is_reported_once() {
    let fixture = Fixture::new(plain(&["a", "b"]), RoundRobin::new()).await;
    let mut events = fixture.balancer.events();
    // One of two may be ejected; the other continues to fail.
    fixture.fail("a", 5);
    settle().await;
    for _ in 0..1_000 {
        fixture.balancer.pick().unwrap().lease().failed();
    }
    settle().await;
    let mut prevented = 0;
    while let Ok(Some(event)) = timeout(Duration::from_millis(1), events.next()).await {
        prevented += usize::from(matches!(event, BalanceEvent::EjectionOverflow { .. }));
    }
    assert_eq!(prevented, 1);
}

#[tokio::test(start_paused = true)]
async fn the_longest_durations_do_not_overflow() {
    let mut outliers = OutlierDetection::default();
    outliers.base_ejection = Duration::MAX;
    outliers.max_ejection = Duration::MAX;
    outliers.consecutive_failures = 300;
    let balancing = BalancerOptions::default().slow_start(Duration::MAX);
    let fixture = Fixture::with(plain(&["a", "b"]), RoundRobin::new(), balancing, outliers).await;
    fixture.fail("a", 300);
    fixture
        .balancer
        .pick()
        .unwrap()
        .lease()
        .rejected(Some(Duration::MAX));
    settle().await;
    assert_eq!(fixture.selection("a"), Selection::Ejected);
    assert_eq!(fixture.pick(), "b");
}
