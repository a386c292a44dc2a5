//! Runs the readiness check of one instance repeatedly and reports the changes.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::probe::Timing;
use crate::text::rounded;

/// The delay between the first checks. It is short so that a fast start is noticed at once.
const FIRST_DELAY: Duration = Duration::from_millis(20);
/// How long a starting instance is checked with the first delay. After that the delay doubles.
const FIRST_DELAY_FOR: Duration = Duration::from_secs(2);
/// The longest delay between the checks of a starting instance.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// The longest delay between the checks after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// A change of health. A problem is the result of the last check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HealthEvent {
    /// A check before the first success has failed, with another result than the one before.
    NotYet(String),
    /// The first check has succeeded.
    Ready,
    /// No check has succeeded within the start timeout. `Ready` may still follow.
    StartTimeout(String),
    /// A healthy instance has failed the configured number of consecutive checks.
    Unhealthy(String),
    /// A check has succeeded after `Unhealthy`.
    Recovered,
}

/// Checks until it is dropped, and reports each change.
pub(crate) async fn monitor<F>(
    timing: Timing,
    start_timeout: Duration,
    mut check: impl FnMut() -> F,
    mut report: impl FnMut(HealthEvent),
) -> Infallible
where
    F: Future<Output = Result<(), String>>,
{
    let mut check = async || match timeout(timing.timeout, check()).await {
        Ok(result) => result,
        Err(_) => Err(format!("no response within {}", rounded(timing.timeout))),
    };

    let started = Instant::now();
    let mut delay = FIRST_DELAY;
    let mut timed_out = false;
    let mut last = None;
    while let Err(problem) = check().await {
        if last.as_ref() != Some(&problem) {
            report(HealthEvent::NotYet(problem.clone()));
            last = Some(problem.clone());
        }
        if !timed_out && started.elapsed() >= start_timeout {
            timed_out = true;
            report(HealthEvent::StartTimeout(problem));
        }
        sleep(delay).await;
        if started.elapsed() >= FIRST_DELAY_FOR {
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }
    report(HealthEvent::Ready);

    let mut failures = 0_u32;
    loop {
        // A failure is confirmed, and its end noticed, before the next regular check.
        sleep(match failures {
            0 => timing.interval,
            _ => timing.interval.min(AFTER_FAILURE),
        })
        .await;
        match check().await {
            Ok(()) => {
                if failures >= timing.failures {
                    report(HealthEvent::Recovered);
                }
                failures = 0;
            }
            Err(problem) => {
                failures = failures.saturating_add(1);
                if failures == timing.failures {
                    report(HealthEvent::Unhealthy(problem));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    const TIMING: Timing = Timing {
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        failures: 3,
    };

    /// Runs the monitor on checks with these results (how often, and whether they succeed), after
    /// which every check hangs. Returns each event with the second in which it was reported.
    async fn run(start_timeout: u64, results: &[(usize, bool)]) -> Vec<(u64, HealthEvent)> {
        let mut left: VecDeque<bool> = results
            .iter()
            .flat_map(|&(times, success)| std::iter::repeat_n(success, times))
            .collect();
        let events = RefCell::new(Vec::new());
        let began = Instant::now();
        let check = || {
            let result = left.pop_front();
            async move {
                match result {
                    Some(true) => Ok(()),
                    Some(false) => Err("refused".to_owned()),
                    None => std::future::pending().await,
                }
            }
        };
        let report = |event| {
            if matches!(event, HealthEvent::NotYet(_)) {
                return;
            }
            events.borrow_mut().push((began.elapsed().as_secs(), event));
        };
        let monitoring = monitor(TIMING, Duration::from_secs(start_timeout), check, report);
        let _ = timeout(Duration::from_secs(60), monitoring).await;
        events.into_inner()
    }

    /// Until the first success, the problems are shown as they change.
    #[tokio::test(start_paused = true)]
    async fn each_new_problem_of_a_start_is_reported_once() {
        let mut problems = VecDeque::from(["refused", "refused", "status 503", "refused"]);
        let events = RefCell::new(Vec::new());
        let check = || {
            let problem = problems.pop_front();
            async move { problem.map_or(Ok(()), |problem| Err(problem.to_owned())) }
        };
        let report = |event| events.borrow_mut().push(event);
        let monitoring = monitor(TIMING, Duration::from_secs(30), check, report);
        let _ = timeout(Duration::from_secs(1), monitoring).await;
        let not_yet = |problem: &str| HealthEvent::NotYet(problem.to_owned());
        let expected = [
            not_yet("refused"),
            not_yet("status 503"),
            not_yet("refused"),
        ];
        let events = events.into_inner();
        assert_eq!(events[..3], expected);
        assert_eq!(events[3..], [HealthEvent::Ready]);
    }

    /// A program that starts slowly is not called 50 times per second all the time.
    #[tokio::test(start_paused = true)]
    async fn a_start_is_checked_often_at_first_and_then_twice_per_second() {
        let mut checks = Vec::new();
        let began = Instant::now();
        let check = || {
            checks.push(began.elapsed());
            assert!(checks.len() < 1000, "it is checked all the time");
            async { Err("refused".to_owned()) }
        };
        let monitoring = monitor(TIMING, Duration::from_secs(5), check, |_| ());
        let _ = timeout(Duration::from_secs(60), monitoring).await;
        let until = |seconds: u64| {
            let limit = Duration::from_secs(seconds);
            checks.iter().filter(|at| **at < limit).count()
        };
        assert_eq!(until(2), 100);
        let doubling = until(4) - until(2);
        assert!((5..12).contains(&doubling), "{doubling}");
        assert_eq!(until(60) - until(10), 100);
    }

    fn unhealthy(problem: &str) -> HealthEvent {
        HealthEvent::Unhealthy(problem.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_start_is_not_unhealthy() {
        let events = run(30, &[(100, false), (1, true)]).await;
        assert_eq!(events[0], (2, HealthEvent::Ready));
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_timeout_is_reported_once_and_the_start_may_still_succeed() {
        let events = run(5, &[(120, false), (1, true)]).await;
        let expected = HealthEvent::StartTimeout("refused".to_owned());
        assert_eq!(events[0], (5, expected));
        assert_eq!(events[1].1, HealthEvent::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn only_consecutive_failures_make_an_instance_unhealthy() {
        let results = [
            (1, true),
            (2, false),
            (1, true),
            (4, false),
            (1, true),
            (8, true),
        ];
        assert_eq!(
            run(5, &results).await[..3],
            [
                (0, HealthEvent::Ready),
                (8, unhealthy("refused")),
                (10, HealthEvent::Recovered)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_has_failed() {
        let events = run(5, &[(1, true)]).await;
        assert_eq!(events[1], (7, unhealthy("no response within 1 s")));
    }
}
