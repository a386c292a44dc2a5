//! How long to wait before a crashed process is started again.

use std::time::Duration;

/// A process that was healthy for this long has its crashes forgiven.
pub(crate) const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// Short, since most crashes are single ones, yet no shorter than the health checks of the sample
/// services are apart: a registry sees the instance go before it sees it come back.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Counts crashes in a row: 1, 2, 4 … 30 s, each longer by up to a fifth by chance so that
/// processes which fell together don't rise together.
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

    /// Forgets all crashes.
    pub(crate) fn forgive(&mut self) {
        self.crashes = 0;
    }

    /// Notes a crash of a process that had been healthy for `healthy_for`.
    /// Returns the number of crashes in a row and the wait before the next start.
    pub(crate) fn crashed(&mut self, healthy_for: Option<Duration>) -> (u32, Duration) {
        if healthy_for.is_some_and(|healthy| healthy >= FORGIVEN_AFTER) {
            self.forgive();
        }
        self.crashes = self.crashes.saturating_add(1);
        // 2^5 s is already longer than the longest.
        let wait = (FIRST * (1 << (self.crashes - 1).min(5))).min(LONGEST);
        (self.crashes, wait.mul_f64(1.0 + 0.2 * self.rng.f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_thirty_seconds() {
        let mut backoff = Backoff::new(7);
        let expected = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0];
        for (index, shortest) in expected.into_iter().enumerate() {
            let (crashes, wait) = backoff.crashed(Some(Duration::from_secs(59)));
            assert_eq!(crashes as usize, index + 1);
            let wait = wait.as_secs_f64();
            assert!(
                wait >= shortest && wait <= 1.2 * shortest,
                "{index}: {wait}"
            );
        }
    }

    #[test]
    fn a_minute_of_health_forgives() {
        let mut backoff = Backoff::new(7);
        for _ in 0..5 {
            backoff.crashed(None);
        }
        let (crashes, wait) = backoff.crashed(Some(FORGIVEN_AFTER));
        assert_eq!(crashes, 1);
        assert!(wait < FIRST * 2);
    }

    #[test]
    fn chance_spreads_the_waits_and_a_seed_repeats_them() {
        let second = |seed| {
            let mut backoff = Backoff::new(seed);
            backoff.crashed(None);
            backoff.crashed(None).1
        };
        assert_eq!(second(1), second(1));
        assert_ne!(second(1), second(2));
    }
}
