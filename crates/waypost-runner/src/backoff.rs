//! The delay before a crashed instance is restarted.

use std::time::Duration;

/// After an instance has been healthy for this long, the delay starts at its minimum again.
pub(crate) const RESET_AFTER: Duration = Duration::from_secs(60);

/// Short, because most crashes are not repeated. It is as long as the interval of the sample
/// services' health checks, so that a registry notices the crash before the instance is back.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Exponential backoff by the number of consecutive crashes: 1, 2, 4 … 30 s, each lengthened by a
/// random 0 to 20 % so that instances that crashed together do not restart together.
#[derive(Debug)]
pub(crate) struct Backoff {
    crashes: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            crashes: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// Sets the number of consecutive crashes to 0.
    pub(crate) fn reset(&mut self) {
        self.crashes = 0;
    }

    /// Records a crash of an instance that had been healthy for `healthy_for`.
    /// Returns the number of consecutive crashes and the delay before the next start.
    pub(crate) fn crashed(&mut self, healthy_for: Option<Duration>) -> (u32, Duration) {
        if healthy_for.is_some_and(|healthy| healthy >= RESET_AFTER) {
            self.reset();
        }
        self.crashes = self.crashes.saturating_add(1);
        // 2^5 s already exceeds the longest delay.
        let delay = (FIRST * (1 << (self.crashes - 1).min(5))).min(LONGEST);
        (self.crashes, delay.mul_f64(1.0 + 0.2 * self.rng.f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_thirty_seconds() {
        let mut backoff = Backoff::new(7);
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0];
        for (index, shortest) in expected.into_iter().enumerate() {
            let (crashes, delay) = backoff.crashed(Some(Duration::from_secs(59)));
            assert_eq!(crashes as usize, index + 1);
            let delay = delay.as_secs_f64();
            assert!(
                delay >= shortest && delay <= 1.2 * shortest,
                "{index}: {delay}"
            );
        }
    }

    #[test]
    fn a_minute_of_health_resets_the_delay() {
        let mut backoff = Backoff::new(7);
        for _ in 0..5 {
            backoff.crashed(None);
        }
        let (crashes, delay) = backoff.crashed(Some(RESET_AFTER));
        assert_eq!(crashes, 1);
        assert!(delay < FIRST * 2);
    }

    #[test]
    fn jitter_depends_on_the_seed_alone() {
        let second = |seed| {
            let mut backoff = Backoff::new(seed);
            backoff.crashed(None);
            backoff.crashed(None).1
        };
        assert_eq!(second(1), second(1));
        assert_ne!(second(1), second(2));
    }
}
