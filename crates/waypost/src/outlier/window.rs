//! Recent outcomes of one endpoint, counted without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// The length of one window; rates are computed over the current window and the one before.
const WINDOW_MILLIS: u64 = 10_000;

/// Successes and failures of one endpoint in the current window of 10 s and the one before, and its
/// consecutive failures. All times are milliseconds since the start of the endpoint's group.
#[derive(Debug, Default)]
pub(crate) struct OutcomeWindow {
    /// The current window, packed.
    current: AtomicU64,
    /// The window before it, packed in the same way.
    previous: AtomicU64,
}

/// The counts over both windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutcomeCounts {
    pub(super) consecutive_failures: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

impl OutcomeWindow {
    /// Counts a success, if it can still change a decision. Without a time, it counts in the current
    /// window.
    #[inline]
    pub(super) fn count_success(&self, now: Option<u64>) {
        let window = Packed(self.current.load(Relaxed));
        let open = now.map_or(window.number(), number);
        if window.number() != open || !window.is_saturated() {
            self.count(open, |window| window.plus_success());
        }
    }

    /// Counts a failure.
    pub(super) fn count_failure(&self, now: u64) -> OutcomeCounts {
        self.counts(self.count(number(now), |window| window.plus_failure()))
    }

    /// Counts a consecutive failure that doesn't count in the success rate. Returns the number of
    /// consecutive failures.
    pub(super) fn count_abandoned(&self, now: u64) -> u32 {
        let window = self.count(number(now), |window| {
            let consecutive = window.consecutive_failures() + 1;
            Packed::new(
                window.number(),
                consecutive,
                window.succeeded(),
                window.failed(),
            )
        });
        window.consecutive_failures()
    }

    fn count(&self, number: u16, plus: impl Fn(Packed) -> Packed) -> Packed {
        let mut old = self.current.load(Relaxed);
        loop {
            let is_next = Packed(old).number() != number;
            let new = plus(if is_next {
                Packed::new(number, Packed(old).consecutive_failures(), 0, 0)
            } else {
                Packed(old)
            });
            match (self.current).compare_exchange_weak(old, new.0, Relaxed, Relaxed) {
                Ok(_) => {
                    if is_next {
                        self.previous.store(old, Relaxed);
                    }
                    return new;
                }
                Err(now) => old = now,
            }
        }
    }

    fn counts(&self, window: Packed) -> OutcomeCounts {
        let previous = Packed(self.previous.load(Relaxed));
        let is_adjacent = previous.number().wrapping_add(1) == window.number();
        let (succeeded, failed) = if is_adjacent {
            (previous.succeeded(), previous.failed())
        } else {
            (0, 0)
        };
        OutcomeCounts {
            consecutive_failures: window.consecutive_failures(),
            succeeded: window.succeeded() + succeeded,
            failed: window.failed() + failed,
        }
    }

    /// Successes and failures in the two latest windows that had any.
    pub(crate) fn recent_counts(&self) -> (u32, u32) {
        let counts = self.counts(Packed(self.current.load(Relaxed)));
        (counts.succeeded, counts.failed)
    }

    /// Discards all outcomes.
    pub(super) fn clear(&self) {
        self.current.store(0, Relaxed);
        self.previous.store(0, Relaxed);
    }
}

/// The maximum number of successes counted per window, and again for each failure: a rate of 99.9 % is
/// above every threshold. So the window of an endpoint that is busy and healthy is only read, and cores
/// can share its cache line.
const SATURATED: u32 = 1_000;

/// The number of a window (16 bits), consecutive failures (8), successes (20), failures (20).
#[derive(Clone, Copy)]
struct Packed(u64);

const COUNT: u64 = (1 << 20) - 1;

impl Packed {
    fn new(number: u16, consecutive_failures: u32, succeeded: u32, failed: u32) -> Self {
        Self(
            u64::from(number) << 48
                | u64::from(consecutive_failures.min(255)) << 40
                | u64::from(succeeded) << 20
                | u64::from(failed),
        )
    }

    fn number(self) -> u16 {
        (self.0 >> 48) as u16
    }

    fn consecutive_failures(self) -> u32 {
        (self.0 >> 40) as u32 & 255
    }

    fn succeeded(self) -> u32 {
        (self.0 >> 20 & COUNT) as u32
    }

    fn failed(self) -> u32 {
        (self.0 & COUNT) as u32
    }

    fn plus_success(self) -> Self {
        let (succeeded, failed) = self.halved_if_full();
        Self::new(self.number(), 0, succeeded + 1, failed)
    }

    fn plus_failure(self) -> Self {
        let (succeeded, failed) = self.halved_if_full();
        let consecutive = self.consecutive_failures() + 1;
        Self::new(self.number(), consecutive, succeeded, failed + 1)
    }

    /// The counts; if one of them is full, both are halved, which keeps their ratio.
    fn halved_if_full(self) -> (u32, u32) {
        let (succeeded, failed) = (self.succeeded(), self.failed());
        if u64::from(succeeded.max(failed)) == COUNT {
            (succeeded / 2, failed / 2)
        } else {
            (succeeded, failed)
        }
    }

    /// Whether there are so many successes per failure that one more changes nothing.
    #[inline]
    fn is_saturated(self) -> bool {
        self.consecutive_failures() == 0 && self.succeeded() >= SATURATED * (self.failed() + 1)
    }
}

#[inline]
fn number(now: u64) -> u16 {
    (now / WINDOW_MILLIS) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_over_two_windows() {
        let window = OutcomeWindow::default();
        for now in [1_000, 2_000] {
            window.count_failure(now);
        }
        window.count_success(Some(3_000));
        let counts = window.count_failure(11_000);
        let expected = OutcomeCounts {
            consecutive_failures: 1,
            succeeded: 1,
            failed: 3,
        };
        assert_eq!(counts, expected);
        // Two windows later the rates start from zero, but not the consecutive failures.
        assert_eq!(window.count_failure(31_000).consecutive_failures, 2);
        assert_eq!(window.recent_counts(), (0, 1));
    }

    #[test]
    fn a_full_counter_keeps_the_ratio() {
        let full = Packed::new(0, 0, COUNT as u32, COUNT as u32 / 2);
        let next = full.plus_success();
        assert_eq!(next.succeeded(), COUNT as u32 / 2 + 1);
        assert_eq!(next.failed(), COUNT as u32 / 4);
    }

    #[test]
    fn successes_are_counted_only_while_they_can_change_a_decision() {
        let window = OutcomeWindow::default();
        let succeed = |times| (0..times).for_each(|_| window.count_success(Some(1)));
        succeed(5_000);
        assert_eq!(window.recent_counts(), (SATURATED, 0));
        // After a failure they count again, starting with the first.
        window.count_failure(1);
        succeed(5_000);
        assert_eq!(window.recent_counts(), (2 * SATURATED, 1));
        assert_eq!(window.count_failure(1).consecutive_failures, 1);
        // In the next window too.
        window.count_success(Some(WINDOW_MILLIS));
        assert_eq!(window.recent_counts(), (2 * SATURATED + 1, 2));
    }
}
