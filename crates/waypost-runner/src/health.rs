//! From answers to verdicts: starting, healthy, unhealthy.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::probe::Timing;

/// The first questions follow quickly, so that a fast process is not waited for.
const FIRST_POLL: Duration = Duration::from_millis(20);
const SLOWEST_POLL: Duration = Duration::from_millis(500);
/// How long a process is asked at the quickest pace.
const QUICK_FOR: Duration = Duration::from_secs(2);

/// A change worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answers, after having been asked for this long; or it answers again.
    Healthy,
    /// It did not answer in time, with the last answer.
    Late(String),
    /// It was healthy and has failed often enough, with the last answer.
    Unhealthy(String),
}

/// Asks for ever and reports each change.
pub(crate) async fn watch<A>(
    timing: Timing,
    start_timeout: Duration,
    mut ask: impl FnMut() -> A,
    mut report: impl FnMut(Verdict),
) -> std::convert::Infallible
where
    A: Future<Output = Result<(), String>>,
{
    let mut once = async || match timeout(timing.timeout, ask()).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {:?}", timing.timeout)),
    };

    let started = Instant::now();
    let mut pause = FIRST_POLL;
    let mut late = false;
    while let Err(problem) = once().await {
        if !late && started.elapsed() >= start_timeout {
            late = true;
            report(Verdict::Late(problem));
        }
        sleep(pause).await;
        if started.elapsed() >= QUICK_FOR {
            pause = (pause * 2).min(SLOWEST_POLL);
        }
    }
    report(Verdict::Healthy);

    let mut failures = 0;
    loop {
        sleep(timing.interval).await;
        match once().await {
            Ok(()) => {
                if failures >= timing.failures {
                    report(Verdict::Healthy);
                }
                failures = 0;
            }
            Err(problem) => {
                failures = failures.saturating_add(1);
                if failures == timing.failures {
                    report(Verdict::Unhealthy(problem));
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

    /// Plays the answers, then hangs. Returns each verdict with its second.
    async fn play(start_timeout: u64, answers: &[(usize, bool)]) -> Vec<(u64, Verdict)> {
        let mut left: VecDeque<bool> = answers
            .iter()
            .flat_map(|&(times, good)| std::iter::repeat_n(good, times))
            .collect();
        let verdicts = RefCell::new(Vec::new());
        let began = Instant::now();
        let ask = || {
            let answer = left.pop_front();
            async move {
                match answer {
                    Some(true) => Ok(()),
                    Some(false) => Err("refused".to_owned()),
                    None => std::future::pending().await,
                }
            }
        };
        let report = |verdict| {
            verdicts
                .borrow_mut()
                .push((began.elapsed().as_secs(), verdict))
        };
        let watched = watch(TIMING, Duration::from_secs(start_timeout), ask, report);
        let _ = timeout(Duration::from_secs(60), watched).await;
        verdicts.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_start_is_not_unhealthy() {
        let verdicts = play(30, &[(100, false), (1, true)]).await;
        assert_eq!(verdicts[0], (2, Verdict::Healthy));
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_that_takes_too_long_is_told_once_and_may_still_succeed() {
        let verdicts = play(5, &[(120, false), (1, true)]).await;
        assert_eq!(verdicts[0], (5, Verdict::Late("refused".to_owned())));
        assert_eq!(verdicts[1].1, Verdict::Healthy);
    }

    #[tokio::test(start_paused = true)]
    async fn only_failures_in_a_row_make_it_unhealthy() {
        let verdicts = play(
            5,
            &[
                (1, true),
                (2, false),
                (1, true),
                (4, false),
                (1, true),
                (8, true),
            ],
        )
        .await;
        assert_eq!(
            verdicts[..3],
            [
                (0, Verdict::Healthy),
                (12, Verdict::Unhealthy("refused".to_owned())),
                (16, Verdict::Healthy)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hanging_answer_is_a_failure() {
        let verdicts = play(5, &[(1, true)]).await;
        assert_eq!(
            verdicts[1],
            (9, Verdict::Unhealthy("no answer within 1s".to_owned()))
        );
    }
}
