//! How long to wait before the next attempt, in one place for all who try again.

use std::time::Duration;

/// Exponential backoff with full jitter: attempt *n* waits a random time up to
/// `base · 2ⁿ`, at most `cap`. Full jitter spreads the clients of a registry that comes back best,
/// as M. Brooker shows in "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Even with luck no attempt follows sooner than this, so that a provider which fails at once
    /// never makes a hot loop.
    const FLOOR: Duration = Duration::from_millis(20);

    /// Waits up to `base` at first and up to `cap` at last.
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            attempt: 0,
            random: fastrand::Rng::new(),
        }
    }

    /// The next waiting time.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let doubled = self.base.saturating_mul(1 << self.attempt.min(20));
        self.attempt = self.attempt.saturating_add(1);
        let most = doubled.min(self.cap);
        most.mul_f64(self.random.f64()).max(Self::FLOOR)
    }

    /// After a success: begin again with short waits.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
    }
}

impl Default for Backoff {
    /// From 200 ms up to 30 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(30))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap_and_start_small_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 0..64 {
            let most = Duration::from_millis(100 << attempt.min(20)).min(backoff.cap);
            let delay = backoff.next_delay();
            assert!(
                delay >= Backoff::FLOOR && delay <= most,
                "{attempt}: {delay:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
