//! Limits the connections that waiting blocking queries hold.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

/// Limits the number of blocking queries that wait for a change at the same time.
///
/// Each waiting query holds a connection, and Consul closes connections beyond
/// `limits.http_max_conns_per_client` (default 200) without a response. If more services are watched
/// than the limit allows, each query waits only briefly, so that all get their turn.
///
/// A query that already waits is never cancelled in favour of another: the agent counts its
/// connection until the end of the wait, so cancelling it would use up connections.
///
/// For the same reason, the connections of a program that has ended count until the end of their waits. So that
/// a program that is restarted again and again doesn't use up the connections of its host, a query waits at
/// most half as long as the program has been running.
#[derive(Debug)]
pub(super) struct ConnectionLimit {
    permits: Semaphore,
    /// The number of callers in [`acquire`](Self::acquire).
    queued: AtomicUsize,
    created: Instant,
}

impl ConnectionLimit {
    /// The longest wait for a change while other queries are queued, and in the first two seconds.
    const SHORT_WAIT: Duration = Duration::from_secs(1);

    /// The longest time in the queue. It takes effect when the permits are held by queries with a
    /// long wait that started before there was a queue.
    const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

    /// A limit of `connections`, at least 1.
    pub(super) fn new(connections: usize) -> Self {
        Self {
            permits: Semaphore::new(connections.max(1)),
            queued: AtomicUsize::new(0),
            created: Instant::now(),
        }
    }

    /// Waits for a permit, first come, first served. `None` after
    /// [`QUEUE_TIMEOUT`](Self::QUEUE_TIMEOUT): the caller should then read without waiting for a
    /// change.
    pub(super) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.permits.try_acquire() {
            return Some(permit);
        }
        self.queued.fetch_add(1, Ordering::SeqCst);
        let _dequeue = DecrementOnDrop(&self.queued);
        let permit = timeout(Self::QUEUE_TIMEOUT, self.permits.acquire()).await;
        // The semaphore is never closed, so the only error is the timeout.
        permit.ok()?.ok()
    }

    /// How long a query that holds a permit may wait for a change, at most `wait`.
    pub(super) fn limit_wait(&self, wait: Duration) -> Duration {
        let longest = if self.queued.load(Ordering::SeqCst) == 0 {
            Self::SHORT_WAIT.max(self.created.elapsed() / 2)
        } else {
            Self::SHORT_WAIT
        };
        wait.min(longest)
    }
}

struct DecrementOnDrop<'a>(&'a AtomicUsize);

impl Drop for DecrementOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;
    use tokio::time::{advance, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_query_waits_at_most_for_half_the_age_of_the_program() {
        const WAIT: Duration = Duration::from_secs(60);
        let limit = ConnectionLimit::new(10);
        for (age, longest) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (10, 5),
            (100, 50),
            (120, 60),
            (500, 60),
        ] {
            advance(Duration::from_secs(age).saturating_sub(limit.created.elapsed())).await;
            let longest = Duration::from_secs(longest);
            assert_eq!(limit.limit_wait(WAIT), longest, "after {age} s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_short_only_while_other_queries_are_queued() {
        const WAIT: Duration = Duration::from_secs(60);
        let limit = Arc::new(ConnectionLimit::new(10));
        advance(2 * WAIT).await;
        let permit = limit.acquire().await.unwrap();
        assert_eq!(limit.limit_wait(WAIT), WAIT);
        drop(permit);

        let mut tasks = JoinSet::new();
        for _ in 0..50 {
            let limit = Arc::clone(&limit);
            tasks.spawn(async move {
                let mut longest = Duration::ZERO;
                let mut queued_at = Instant::now();
                // The first ten queries start before there is a queue and wait for a minute.
                for _ in 0..20 {
                    let permit = limit.acquire().await;
                    longest = longest.max(queued_at.elapsed());
                    queued_at = Instant::now();
                    if permit.is_some() {
                        sleep(limit.limit_wait(WAIT)).await;
                        queued_at = Instant::now();
                    }
                }
                longest
            });
        }
        let longest = tasks.join_all().await.into_iter().max().unwrap();
        assert!(longest <= ConnectionLimit::QUEUE_TIMEOUT, "{longest:?}");
    }
}
