use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    sync::{Notify, Semaphore, SemaphorePermit},
    time::sleep,
};

/// The connections that blocking queries may hold at a time.
///
/// Each waiting query holds a connection, and Consul closes those beyond
/// `limits.http_max_conns_per_client` (200 unless set) without a word. So there is a number of
/// places; where more services are watched than there are places, they take turns, each for at
/// least a second.
#[derive(Debug)]
pub(super) struct Places {
    free: Semaphore,
    waiting: AtomicUsize,
    crowd: Notify,
}

impl Places {
    /// A turn lasts at least this long, so that taking turns makes no hot loop.
    const TURN: Duration = Duration::from_secs(1);

    pub(super) fn new(places: usize) -> Self {
        Self {
            free: Semaphore::new(places.max(1)),
            waiting: AtomicUsize::new(0),
            crowd: Notify::new(),
        }
    }

    /// Waits for a place; the one who waits longest is the first to get one.
    pub(super) async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(place) = self.free.try_acquire() {
            return Some(place);
        }
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(&self.waiting);
        self.crowd.notify_one();
        // It is never closed, so this gives a place always.
        self.free.acquire().await.ok()
    }

    /// Ends when one who holds a place has had a turn and another waits.
    pub(super) async fn wanted(&self) {
        sleep(Self::TURN).await;
        while self.waiting.load(Ordering::SeqCst) == 0 {
            self.crowd.notified().await;
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

    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_get_their_turn_and_a_lone_one_keeps_its_place() {
        let places = Arc::new(Places::new(10));
        let alone = places.take().await.unwrap();
        assert!(
            timeout(Duration::from_secs(600), places.wanted())
                .await
                .is_err()
        );
        drop(alone);

        let turns = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let (places, turns) = (Arc::clone(&places), Arc::clone(&turns));
            tasks.spawn(async move {
                for _ in 0..3 {
                    let _place = places.take().await;
                    turns.fetch_add(1, Ordering::SeqCst);
                    let _ = timeout(Duration::from_secs(60), places.wanted()).await;
                }
            });
        }
        let began = Instant::now();
        tasks.join_all().await;
        assert_eq!(turns.load(Ordering::SeqCst), 300);
        // Thirty rounds of a second; the last ones are not pushed out by anybody.
        let took = began.elapsed().as_secs();
        assert!((29..=91).contains(&took), "{took}");
    }
}
