//! Functions of the application that panic, and trial requests without an outcome, with every strategy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{advance, sleep, timeout};
use waypost::balance::{RoundRobin, Selection, strategy_named};
use waypost::directory::{Directory, DirectoryOptions};
use waypost::provider::ServiceAnswer;
use waypost::{ActiveCheck, Balancer};

use super::Boxed;
use super::fixture::{Fixture, plain, settle};
use crate::scripted::{ScriptedProvider, auth};

#[tokio::test(start_paused = true)]
async fn an_active_check_that_panics_has_failed_and_is_repeated() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let check = ActiveCheck::custom(move |instance| {
        let is_bad = instance.id().as_str() == "b" && counted.fetch_add(1, Ordering::SeqCst) < 5;
        async move {
            assert!(!is_bad, "no more memory for {}", instance.id());
            Ok(())
        }
    });
    let script = ScriptedProvider::default();
    script.set_first_item(Ok(ServiceAnswer::Instances(plain(&["a", "b", "c"]))));
    let mut options = DirectoryOptions::default();
    options.active_check = Some(check);
    let directory = Directory::with_options(Arc::new(script), options);
    let balancer = Balancer::new(&directory, &auth(), Box::new(RoundRobin::new()));
    balancer.ready().await.unwrap();
    let b = || balancer.explain().instances[1].clone();
    let wait_until = async |selection| {
        let reached = async {
            while b().selection != selection {
                sleep(Duration::from_secs(1)).await;
            }
        };
        timeout(Duration::from_secs(600), reached).await.unwrap();
    };
    wait_until(Selection::Ejected).await;
    let failure = b().check.unwrap().failure.unwrap();
    assert!(
        failure.contains("the check panicked: no more memory for b"),
        "{failure}"
    );
    wait_until(Selection::Used).await;
    assert!(runs.load(Ordering::SeqCst) > 5);
}

/// As `curl -m 1`, one after another, while `b` hangs after its ejection.
#[tokio::test(start_paused = true)]
async fn with_every_strategy_at_most_one_trial_is_lost_after_failures_and_after_overload() {
    for name in [
        "round_robin",
        "smooth_weighted_round_robin",
        "random",
        "weighted_random",
        "least_connections",
        "p2c_peak_ewma",
    ] {
        for is_overloaded in [false, true] {
            let strategy = Boxed(strategy_named(name).unwrap());
            let fixture = Fixture::new(plain(&["a", "b", "c", "d"]), strategy).await;
            if is_overloaded {
                let mut lease = fixture.balancer.pick().unwrap().lease();
                while lease.id().as_str() != "b" {
                    lease = fixture.balancer.pick().unwrap().lease();
                }
                lease.rejected(Some(Duration::from_secs(30)));
            } else {
                fixture.fail("b", 5);
            }
            settle().await;
            assert_eq!(fixture.selection("b"), Selection::Ejected, "{name}");
            advance(Duration::from_secs(34)).await;
            settle().await;
            let mut lost = 0;
            for _ in 0..20 {
                let attempt = async {
                    let lease = fixture.balancer.pick().unwrap().lease();
                    if lease.id().as_str() == "b" {
                        std::future::pending::<()>().await;
                    }
                    lease.succeeded();
                };
                lost += usize::from(timeout(Duration::from_secs(1), attempt).await.is_err());
                settle().await;
            }
            assert!(
                lost <= 1,
                "{name}, overloaded: {is_overloaded}: {lost} of 20"
            );
        }
    }
}
