//! Limits how many requests run local models at once.
//!
//! Local models are CPU-bound, so a queue without a limit would only delay the rejection of the
//! requests that can't be served in time. Short and long requests have separate limits: a short one
//! takes milliseconds and never waits behind long ones, which take seconds. Threads of both share
//! the cores, which the operating system divides fairly.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::problem::Problem;

/// The longest request that counts as short, in characters of all its texts together.
const MAX_SHORT: usize = 2_000;

/// How long a request waits before it is rejected.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Admits requests.
pub(crate) struct Admission {
    short: Lane,
    long: Lane,
}

/// The permission to run local models, one text at a time. Work on another thread holds a clone, so
/// that the slot stays in use until the work has ended, even if the request was cancelled.
#[derive(Clone)]
pub(crate) struct Slot {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Requests of one kind.
struct Lane {
    running: Arc<Semaphore>,
    waiting: Semaphore,
    /// When a rejected client should retry, in seconds.
    retry_after: u64,
}

impl Admission {
    /// Limits for this number of cores.
    pub(crate) fn new(cores: usize) -> Self {
        Self {
            short: Lane::new(cores, 32 * cores, 1),
            // Leaves one core to everything else.
            long: Lane::new(cores.saturating_sub(1).max(1), 2 * cores, 5),
        }
    }

    /// Waits for a slot for a request of this length. Rejects the request if too many are waiting,
    /// or none ends in time.
    pub(crate) async fn admit(&self, characters: usize) -> Result<Slot, Problem> {
        let lane = if characters <= MAX_SHORT {
            &self.short
        } else {
            &self.long
        };
        let permit = lane.acquire().await;
        let permit = permit.ok_or_else(|| Problem::overloaded(lane.retry_after))?;
        Ok(Slot {
            _permit: Arc::new(permit),
        })
    }
}

impl Lane {
    fn new(running: usize, waiting: usize, retry_after: u64) -> Self {
        Self {
            running: Arc::new(Semaphore::new(running)),
            waiting: Semaphore::new(waiting),
            retry_after,
        }
    }

    async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Some(permit);
        }
        let _waiting = self.waiting.try_acquire().ok()?;
        let permit = timeout(WAIT_TIMEOUT, Arc::clone(&self.running).acquire_owned());
        permit.await.ok()?.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use http::StatusCode;
    use tokio::time::Instant;

    use super::*;

    const LONG: usize = 500_000;

    #[tokio::test(start_paused = true)]
    async fn long_requests_are_rejected_in_time_and_do_not_delay_short_ones() {
        let admission = Admission::new(2);
        let _running = admission.admit(LONG).await.unwrap();
        let started = Instant::now();
        let long = join_all((0..32).map(|_| admission.admit(LONG)));
        for rejected in long.await {
            let problem = rejected.err().expect("no slot is free");
            assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(started.elapsed(), WAIT_TIMEOUT);
        assert!(admission.admit(100).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn beyond_the_waiting_requests_a_request_is_rejected_at_once() {
        let admission = Admission::new(1);
        let _running = admission.admit(LONG).await.unwrap();
        let mut waiting = Box::pin(join_all((0..2).map(|_| admission.admit(LONG))));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(admission.admit(LONG).now_or_never().unwrap().is_err());
    }

    #[tokio::test]
    async fn a_slot_is_free_again_when_the_work_has_ended() {
        let admission = Admission::new(1);
        let slot = admission.admit(LONG).await.unwrap();
        let work = slot.clone();
        drop(slot);
        let mut next = Box::pin(admission.admit(LONG));
        assert!(next.as_mut().now_or_never().is_none(), "the work continues");
        drop(work);
        assert!(next.await.is_ok());
    }
}
