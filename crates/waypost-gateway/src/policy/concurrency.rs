//! Limits the number of a route's requests that are in progress, and of those that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// A limit of one route.
#[derive(Debug)]
pub(crate) struct Concurrency {
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
    max_wait: Duration,
}

/// Counts a waiting request until it is dropped, for example because its client disconnects.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Concurrency {
    /// Allows `concurrent` requests at a time, while up to `pending` others wait for up to `max_wait`.
    pub(crate) fn new(concurrent: usize, pending: usize, max_wait: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(concurrent.min(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            max_waiting: pending,
            max_wait,
        }
    }

    /// Waits for a permit, which is held until the request ends.
    ///
    /// # Errors
    /// A 503 if too many requests wait already, or if this one has waited for too long.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(overloaded("too many requests are in progress and waiting"));
        }
        let _waiting = Waiting(&self.waiting);
        let permit = Arc::clone(&self.permits).acquire_owned();
        match tokio::time::timeout(self.max_wait, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(overloaded("no request in progress has ended in time")),
        }
    }
}

fn overloaded(detail: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_a_permit_unless_too_many_wait() {
        let limit = Concurrency::new(1, 1, Duration::from_secs(5));
        let first = limit.enter().await.unwrap();
        let (second, third) = tokio::join!(limit.enter(), limit.enter());
        assert_eq!(
            second.unwrap_err().detail,
            "no request in progress has ended in time"
        );
        assert!(third.unwrap_err().detail.contains("waiting"));
        let (second, ()) = tokio::join!(limit.enter(), async { drop(first) });
        assert!(second.is_ok());
    }
}
