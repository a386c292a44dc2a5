use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// The connections that blocking queries may hold at a time.
///
/// Each waiting query holds a connection, and Consul closes those beyond
/// `limits.http_max_conns_per_client` (200 unless set) without a word. So there is a number of
/// places; where more services are watched than there are places, they take short turns.
///
/// A query that waits is never given up for another one: the agent counts its connection until it
/// would have answered, so that giving up uses up the very connections that are to be saved.
#[derive(Debug)]
pub(super) struct Places {
    free: Semaphore,
    waiting: AtomicUsize,
}

impl Places {
    /// How long a turn is while others wait.
    const TURN: Duration = Duration::from_secs(1);

    /// Who has waited so long for a place reads without one, as when those who hold the places
    /// came before there was a crowd.
    const PATIENCE: Duration = Duration::from_secs(10);

    pub(super) fn new(places: usize) -> Self {
        Self {
            free: Semaphore::new(places.max(1)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Waits for a place; the one who waits longest is the first to get one. `None` means to read
    /// without waiting for a change.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.free.try_acquire() {
            return Some(place);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(&self.waiting);
        let place = timeout(Self::PATIENCE, self.free.acquire()).await;
        // It is never closed, so only time can run out.
        place.ok()?.ok()
    }

    /// How long one who holds a place may wait for a change.
    pub(super) fn turn(&self, wait: Duration) -> Duration {
        match self.waiting.load(Ordering::SeqCst) {
            0 => wait,
            _ => wait.min(Self::TURN),
        }
    }
}

struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lone_one_waits_long_and_a_crowd_takes_short_turns() {
        const WAIT: Duration = Duration::from_secs(60);
        let places = Arc::new(Places::new(10));
        let alone = places.take().await.unwrap();
        assert_eq!(places.turn(WAIT), WAIT);
        drop(alone);

        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let places = Arc::clone(&places);
            tasks.spawn(async move {
                let mut longest = Duration::ZERO;
                let mut before = Instant::now();
                // The first ten came before the crowd and wait for a minute.
                for _ in 0..20 {
                    let place = places.take().await;
                    longest = longest.max(before.elapsed());
                    before = Instant::now();
                    if place.is_some() {
                        sleep(places.turn(WAIT)).await;
                        before = Instant::now();
                    }
                }
                longest
            });
        }
        let longest = tasks.join_all().await.into_iter().max().unwrap();
        assert!(longest <= Places::PATIENCE, "{longest:?}");
    }
}
