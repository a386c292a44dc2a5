//! Limits the rate of a watch's requests.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A token bucket that keeps a watch from becoming a busy loop.
///
/// A request after a response without a change costs one token; one after a change costs a fifth. So
/// a burst of changes passes without delay, while a server that answers at once without any change,
/// such as one without blocking queries, gets [`PER_SECOND`](Self::PER_SECOND) requests per second.
pub(super) struct RateLimiter {
    tokens: f64,
    refilled_at: Instant,
}

impl RateLimiter {
    const BURST: f64 = 50.0;
    const PER_SECOND: f64 = 10.0;
    const COST_AFTER_CHANGE: f64 = 0.2;

    /// A full bucket.
    pub(super) fn new() -> Self {
        Self {
            tokens: Self::BURST,
            refilled_at: Instant::now(),
        }
    }

    /// Waits until the next request may be sent.
    pub(super) async fn acquire(&mut self, after_change: bool) {
        let cost = if after_change {
            Self::COST_AFTER_CHANGE
        } else {
            1.0
        };
        let refill = self.refilled_at.elapsed().as_secs_f64() * Self::PER_SECOND;
        self.tokens = (self.tokens + refill).min(Self::BURST);
        self.refilled_at = Instant::now();
        if self.tokens < cost {
            let missing = (cost - self.tokens) / Self::PER_SECOND;
            sleep(Duration::from_secs_f64(missing)).await;
        }
        self.tokens -= cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_endless_requests_are_slowed() {
        let mut limiter = RateLimiter::new();
        let started = Instant::now();
        for _ in 0..50 {
            limiter.acquire(false).await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            limiter.acquire(false).await;
        }
        let took = started.elapsed().as_secs_f64();
        assert!((9.5..10.5).contains(&took), "{took}");
        for _ in 0..100 {
            limiter.acquire(true).await;
        }
        let took = started.elapsed().as_secs_f64() - took;
        assert!((1.5..2.5).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_only_for_what_is_missing() {
        let mut limiter = RateLimiter::new();
        for _ in 0..50 {
            limiter.acquire(false).await;
        }
        // Half a token.
        sleep(Duration::from_millis(50)).await;
        let started = Instant::now();
        limiter.acquire(false).await;
        let waited = started.elapsed();
        assert!((50..=51).contains(&waited.as_millis()), "{waited:?}");
        let started = Instant::now();
        limiter.acquire(true).await;
        let waited = started.elapsed();
        assert!((19..=21).contains(&waited.as_millis()), "{waited:?}");
    }
}
