//! Outlier detection: causes and durations of ejections, trial requests, limits, panic mode.

use std::time::Duration;

use tokio::time::advance;
use waypost::Health;
use waypost::balance::{BalancerOptions, RoundRobin, Selection};
use waypost::outlier::{BalanceEvent, EjectionCause, OutlierDetection};
use waypost_testkit::Logs;

use super::fixture::{Fixture, instance, many, plain, settle};

#[tokio::test(start_paused = true)]
async fn five_consecutive_failures_eject_and_a_successful_trial_readmits() {
    let (logs, _guard) = Logs::take();
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    let mut events = fixture.balancer.events();
    fixture.fail("b", 4);
    settle().await;
    assert_eq!(fixture.selection("b"), Selection::Used);
    fixture.fail("b", 1);
    settle().await;
    assert_eq!(fixture.selection("b"), Selection::Ejected);
    assert!(!fixture.counts(300).contains_key("b"));
    let Some(BalanceEvent::Ejected {
        cause,
        seconds: Some(seconds),
        times,
        ..
    }) = events.next().await
    else {
        panic!("an ejection is an event");
    };
    assert_eq!((cause, times), (EjectionCause::ConsecutiveFailures, 1));
    assert!((27.0..=33.0).contains(&seconds), "{seconds}");

    advance(Duration::from_secs(34)).await;
    settle().await;
    assert_eq!(fixture.selection("b"), Selection::Probing);
    // A single request goes to it, instead of one in three.
    let probe = fixture.balancer.pick().unwrap();
    assert_eq!(probe.id().as_str(), "b");
    let probe = probe.lease();
    assert!(!fixture.counts(100).contains_key("b"));
    probe.succeeded();
    settle().await;
    assert_eq!(fixture.counts(300)["b"], 100);
    let back = events.next().await.unwrap();
    assert_eq!(
        back,
        BalanceEvent::Returned {
            instance: "b".into()
        }
    );
    for words in [
        ["WARN", "endpoint ejected for", "instance=b"],
        ["INFO", "endpoint no longer ejected", "instance=b"],
    ] {
        assert_eq!(logs.lines(&words).len(), 1, "{}", logs.text());
    }
}

#[tokio::test(start_paused = true)]
async fn each_failed_trial_lengthens_the_next_ejection_up_to_the_maximum() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    let mut events = fixture.balancer.events();
    fixture.fail("b", 5);
    for expected in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300] {
        let Some(BalanceEvent::Ejected {
            seconds: Some(seconds),
            ..
        }) = events.next().await
        else {
            panic!("it stays ejected");
        };
        let range = f64::from(expected) * 0.89..=f64::from(expected.min(273)) * 1.1 + 0.1;
        assert!(range.contains(&seconds), "{seconds} for {expected}");
        settle().await;
        advance(Duration::from_secs_f64(seconds)).await;
        settle().await;
        let probe = fixture.balancer.pick().unwrap().lease();
        assert_eq!(probe.id().as_str(), "b");
        probe.failed();
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_rate_below_one_half_ejects() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    let mut turn = 0;
    for _ in 0..300 {
        let lease = fixture.balancer.pick().unwrap().lease();
        if lease.id().as_str() != "c" {
            lease.succeeded();
            continue;
        }
        turn += 1;
        // Two of three fail, never five in a row.
        if turn % 3 == 0 {
            lease.succeeded()
        } else {
            lease.failed()
        }
    }
    settle().await;
    assert_eq!(fixture.selection("c"), Selection::Ejected);
    assert_eq!(fixture.balancer.counters().ejected_success_rate, 1);
}

#[tokio::test(start_paused = true)]
async fn at_most_half_are_ejected_and_never_the_last_one() {
    let all_fail = |fixture: &Fixture, ids: &[String]| {
        for _ in 0..ids.len() * 50 {
            fixture.balancer.pick().unwrap().lease().failed();
        }
    };
    for (count, ejected) in [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)] {
        let fixture = Fixture::new(many(count), RoundRobin::new()).await;
        let ids: Vec<String> = many(count).iter().map(|i| i.id().to_string()).collect();
        for _ in 0..10 {
            all_fail(&fixture, &ids);
            settle().await;
        }
        let counters = fixture.balancer.counters();
        assert_eq!(counters.ejected_now, ejected, "of {count}");
        assert!(counters.ejections_overflow > 0);
        assert!(fixture.balancer.pick().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn panic_mode_uses_all_endpoints_and_is_reported() {
    let instances = |critical: usize| {
        let health = |index| {
            if index < critical {
                Health::Critical
            } else {
                Health::Passing
            }
        };
        (0..10)
            .map(|index| instance(&format!("i{index}"), |i| i.health(health(index))))
            .collect::<Vec<_>>()
    };
    let fixture = Fixture::new(instances(0), RoundRobin::new()).await;
    let mut events = fixture.balancer.events();
    fixture.fail("i7", 5);
    fixture.fail("i8", 5);
    settle().await;
    assert_eq!(fixture.counts(80).len(), 8);
    // Four more are critical, so four of ten are left, and ejections are disregarded.
    fixture.update(instances(4)).await;
    assert_eq!(fixture.counts(60).len(), 6);
    assert!(fixture.balancer.explain().panic);
    fixture.update(instances(0)).await;
    assert_eq!(fixture.counts(80).len(), 8);
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(events.next().await.unwrap());
    }
    let panic = BalanceEvent::PanicBegan {
        healthy: 4,
        known: 10,
    };
    assert_eq!(&seen[2..], [panic, BalanceEvent::PanicEnded]);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_respected() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::starting_at(0)).await;
    let lease = fixture.balancer.pick().unwrap().lease();
    lease.rejected(Some(Duration::from_secs(7)));
    drop(lease);
    settle().await;
    assert!(!fixture.counts(100).contains_key("a"));
    advance(Duration::from_secs(7)).await;
    settle().await;
    assert_eq!(fixture.pick(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_lease_has_no_outcome_and_detection_can_be_disabled() {
    let fixture = Fixture::new(plain(&["a", "b"]), RoundRobin::new()).await;
    (0..100).for_each(|_| drop(fixture.balancer.pick().unwrap().lease()));
    settle().await;
    assert_eq!(fixture.counts(10).len(), 2);

    let (balancing, off) = (BalancerOptions::default(), OutlierDetection::off());
    let fixture = Fixture::with(plain(&["a", "b"]), RoundRobin::new(), balancing, off).await;
    (0..100).for_each(|_| fixture.balancer.pick().unwrap().lease().failed());
    settle().await;
    assert_eq!(fixture.counts(10).len(), 2);
}

/// A change of weight or metadata doesn't end an ejection; the removal of the instance does.
#[tokio::test(start_paused = true)]
async fn an_ejection_survives_updates_and_ends_when_the_instance_is_removed() {
    let fixture = Fixture::new(plain(&["a", "b", "c", "d"]), RoundRobin::new()).await;
    fixture.fail("b", 5);
    settle().await;
    let heavier = instance("b", |i| i.weight(waypost::Weight::new(9)).meta("k", "v"));
    let mut changed = plain(&["a", "c", "d"]);
    changed.push(heavier);
    fixture.update(changed).await;
    assert_eq!(fixture.selection("b"), Selection::Ejected);
    fixture.update(plain(&["a", "c", "d"])).await;
    assert_eq!(fixture.balancer.counters().ejected_now, 0);
    fixture.update(plain(&["a", "b", "c", "d"])).await;
    assert_eq!(fixture.selection("b"), Selection::Used);
}

#[tokio::test(start_paused = true)]
async fn a_retry_avoids_ejected_endpoints_while_there_is_another() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    fixture.fail("b", 5);
    settle().await;
    for _ in 0..20 {
        let pick = fixture.balancer.pick_except(&["a".into()]).unwrap();
        assert_eq!(pick.id().as_str(), "c");
    }
}

/// Only one of three may be ejected. An endpoint that is critical in the registry doesn't count.
#[tokio::test(start_paused = true)]
async fn a_critical_endpoint_does_not_count_towards_the_ejection_limit() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    fixture.fail("a", 5);
    settle().await;
    fixture.fail("b", 5);
    settle().await;
    assert_eq!(
        fixture.selection("b"),
        Selection::Used,
        "not ejected: too many others are"
    );
    let a = instance("a", |a| a.health(Health::Critical));
    let others = ["b", "c"].map(|id| instance(id, |it| it));
    fixture
        .update(others.into_iter().chain([a]).collect())
        .await;
    fixture.fail("b", 5);
    settle().await;
    assert_eq!(fixture.selection("b"), Selection::Ejected);
    // One of three is left, which is not few enough for panic mode.
    assert_eq!(fixture.picks(4), ["c"; 4]);
    assert!(!fixture.balancer.explain().panic);
    assert_eq!(fixture.balancer.counters().ejected_now, 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_recovers_in_the_registry_is_readmitted() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    fixture.fail("b", 5);
    settle().await;
    assert_eq!(fixture.selection("b"), Selection::Ejected);
    for (health, selection) in [
        (Health::Warning, Selection::Ejected),
        (Health::Critical, Selection::Critical),
        (Health::Passing, Selection::Used),
    ] {
        let b = instance("b", |b| b.health(health));
        let others = ["a", "c"].map(|id| instance(id, |it| it));
        fixture
            .update(others.into_iter().chain([b]).collect())
            .await;
        assert_eq!(fixture.selection("b"), selection, "{health}");
    }
    assert_eq!(fixture.counts(300)["b"], 100);
}

#[tokio::test(start_paused = true)]
async fn the_success_rate_counts_from_twenty_outcomes_on() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    // Of "c", two of three requests fail, never five in a row.
    let mut outcomes = 0;
    while outcomes < 19 {
        let lease = fixture.balancer.pick().unwrap().lease();
        if lease.id().as_str() == "c" {
            outcomes += 1;
            if outcomes % 3 == 0 {
                lease.succeeded();
            } else {
                lease.failed();
            }
        } else {
            lease.succeeded();
        }
    }
    settle().await;
    assert_eq!(fixture.selection("c"), Selection::Used);
    fixture.fail("c", 1);
    settle().await;
    assert_eq!(fixture.selection("c"), Selection::Ejected);
}

/// Ejects `id` and returns for how long, and the number of consecutive ejections.
async fn eject(fixture: &Fixture, id: &str) -> (f64, u32) {
    let mut events = fixture.balancer.events();
    fixture.fail(id, 5);
    settle().await;
    match events.next().await {
        Some(BalanceEvent::Ejected {
            seconds: Some(seconds),
            times,
            ..
        }) => (seconds, times),
        other => panic!("{other:?}"),
    }
}

/// Waits until the ejection of `id` has expired, and lets its trial succeed.
async fn readmit(fixture: &Fixture, id: &str, seconds: f64) {
    advance(Duration::from_secs_f64(seconds)).await;
    settle().await;
    let trial = fixture.balancer.pick().unwrap().lease();
    assert_eq!(trial.id().as_str(), id);
    trial.succeeded();
    drop(trial);
    settle().await;
    assert_eq!(fixture.selection(id), Selection::Used);
}

#[tokio::test(start_paused = true)]
async fn ejections_have_ten_percent_of_jitter() {
    let mut all = Vec::new();
    for _ in 0..40 {
        let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
        all.push(eject(&fixture, "b").await.0);
    }
    assert!(
        all.iter().all(|seconds| (27.0..=33.0).contains(seconds)),
        "{all:?}"
    );
    let spread = |low: f64, high: f64| all.iter().any(|seconds| (low..high).contains(seconds));
    assert!(spread(27.0, 29.0) && spread(31.0, 33.1), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn each_base_time_without_an_ejection_cancels_an_earlier_one() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    let (seconds, times) = eject(&fixture, "b").await;
    assert_eq!(times, 1);
    readmit(&fixture, "b", seconds).await;
    let (seconds, times) = eject(&fixture, "b").await;
    assert_eq!(times, 2);
    readmit(&fixture, "b", seconds).await;
    // Two base times of 30 s cancel both.
    advance(Duration::from_secs(61)).await;
    settle().await;
    let (_, times) = eject(&fixture, "b").await;
    assert_eq!(times, 1);
}

#[tokio::test(start_paused = true)]
async fn a_readmitted_endpoint_starts_without_its_earlier_failures() {
    let fixture = Fixture::new(plain(&["a", "b", "c"]), RoundRobin::new()).await;
    let (seconds, _) = eject(&fixture, "b").await;
    readmit(&fixture, "b", seconds).await;
    fixture.fail("b", 4);
    settle().await;
    assert_eq!(fixture.selection("b"), Selection::Used);
}
