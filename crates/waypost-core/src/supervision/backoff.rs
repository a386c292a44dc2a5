//! Exponential backoff with full jitter, for everything that retries.

use std::time::Duration;

/// Exponential backoff with full jitter: attempt *n* waits a random time up to `base · 2ⁿ`, at most
/// `cap`, at least 20 ms.
///
/// Full jitter spreads the load of many clients best when a registry is available again; see M. Brooker,
/// "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015).
///
/// ```
/// use std::time::Duration;
/// use waypost_core::supervision::Backoff;
///
/// let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// assert!(backoff.next_delay() <= Duration::from_millis(100));
/// assert!(backoff.next_delay() <= Duration::from_millis(200));
/// backoff.reset();
/// assert!(backoff.next_delay() <= Duration::from_millis(100));
/// ```
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    attempt: u32,
    random: fastrand::Rng,
}

impl Backoff {
    /// Lower bound of a delay, so that a provider that fails at once never causes a busy loop.
    const MIN_DELAY: Duration = Duration::from_millis(20);

    /// The first delay is at most `base`, every delay at most `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            attempt: 0,
            random: fastrand::Rng::new(),
        }
    }

    /// The time to wait before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let doubled = self.base.saturating_mul(1 << self.attempt.min(20));
        self.attempt = self.attempt.saturating_add(1);
        let max = doubled.min(self.cap);
        max.mul_f64(self.random.f64()).max(Self::MIN_DELAY)
    }

    /// Starts again with short delays, after a success.
    pub fn reset(&mut self) {
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
    fn delays_have_full_jitter() {
        let delays = |_| {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
            backoff.next_delay()
        };
        let all: Vec<_> = (0..200).map(delays).collect();
        let count = |low: u64, high: u64| {
            let range = Duration::from_millis(low)..Duration::from_millis(high);
            all.iter().filter(|delay| range.contains(delay)).count()
        };
        // A quarter each, about 50.
        for quarter in [0, 250, 500, 750] {
            assert!(count(quarter, quarter + 251) >= 20, "{all:?}");
        }
    }

    #[test]
    fn delays_grow_up_to_the_cap_and_a_reset_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 0..64 {
            let max = Duration::from_millis(100 << attempt.min(20)).min(backoff.cap);
            let delay = backoff.next_delay();
            assert!(
                delay >= Backoff::MIN_DELAY && delay <= max,
                "{attempt}: {delay:?}"
            );
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(100));
    }
}
