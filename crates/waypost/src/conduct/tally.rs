use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

/// The length of one of the two windows that successes and failures are counted in.
const WINDOW_MILLIS: u64 = 10_000;

/// For how long a probe keeps others away if nothing is heard of it.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Stands for the end of an ejection that checks decide.
const UNTIL_WELL: u64 = u64::MAX;

/// How one endpoint has behaved lately, and whether it is ejected for it. All times are
/// milliseconds after the fleet's birth.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    /// This window: its number (16 bits), failures in a row (8), successes (20), failures (20).
    window: AtomicU64,
    /// The window before, in the same form.
    before: AtomicU64,
    /// When the ejection ends; 0 if there is none, [`UNTIL_WELL`] if checks decide that.
    until: AtomicU64,
    /// When the next probe may go.
    probe: AtomicU64,
    /// How many ejections in close succession.
    pub(super) times: AtomicU32,
    /// When it came back last, in tenths of a second.
    pub(super) returned: AtomicU32,
}

/// Whether an endpoint may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Active,
    /// Until this moment; without one, until its checks pass.
    Ejected(Option<u64>),
    /// Its time is over; the outcome of one request decides.
    HalfOpen,
}

/// What was counted in this window and the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) in_a_row: u32,
    pub(super) succeeded: u32,
    pub(super) failed: u32,
}

impl Conduct {
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.until.load(Relaxed) == 0
    }

    pub(crate) fn status(&self, now: u64) -> Status {
        match self.until.load(Relaxed) {
            0 => Status::Active,
            UNTIL_WELL => Status::Ejected(None),
            until if until > now => Status::Ejected(Some(until)),
            _ => Status::HalfOpen,
        }
    }

    /// Counts a success, as long as that makes a difference. Without a time it counts in the window
    /// that is open.
    #[inline]
    pub(super) fn count_success(&self, now: Option<u64>) {
        let window = Packed(self.window.load(Relaxed));
        let open = now.map_or(window.number(), number);
        if window.number() != open || !window.is_beyond_doubt() {
            self.count(open, |window| window.plus_success());
        }
    }

    /// Counts a failure.
    pub(super) fn count_failure(&self, now: u64) -> Tally {
        self.tally(self.count(number(now), |window| window.plus_failure()))
    }

    fn count(&self, number: u16, plus: impl Fn(Packed) -> Packed) -> Packed {
        let mut old = self.window.load(Relaxed);
        loop {
            let turned = Packed(old).number() != number;
            let new = plus(match turned {
                true => Packed::new(number, Packed(old).in_a_row(), 0, 0),
                false => Packed(old),
            });
            match (self.window).compare_exchange_weak(old, new.0, Relaxed, Relaxed) {
                Ok(_) => {
                    if turned {
                        self.before.store(old, Relaxed);
                    }
                    return new;
                }
                Err(now) => old = now,
            }
        }
    }

    fn tally(&self, window: Packed) -> Tally {
        let before = Packed(self.before.load(Relaxed));
        let adjoins = before.number().wrapping_add(1) == window.number();
        let (succeeded, failed) = match adjoins {
            true => (before.succeeded(), before.failed()),
            false => (0, 0),
        };
        Tally {
            in_a_row: window.in_a_row(),
            succeeded: window.succeeded() + succeeded,
            failed: window.failed() + failed,
        }
    }

    /// Successes and failures in the last 10 to 20 s that had any.
    pub(crate) fn recent_counts(&self) -> (u32, u32) {
        let tally = self.tally(Packed(self.window.load(Relaxed)));
        (tally.succeeded, tally.failed)
    }

    /// How many ejections there were in close succession.
    pub(crate) fn times(&self) -> u32 {
        self.times.load(Relaxed)
    }

    pub(super) fn eject(&self, until: Option<u64>) {
        self.probe.store(0, Relaxed);
        let until = until.map_or(UNTIL_WELL, |until| until.max(1));
        self.until.store(until, Relaxed);
    }

    /// Back to use, with a clean sheet.
    pub(super) fn readmit(&self) {
        self.window.store(0, Relaxed);
        self.before.store(0, Relaxed);
        self.until.store(0, Relaxed);
    }

    /// Takes the right to send the one probe.
    pub(crate) fn claim_probe(&self, now: u64) -> bool {
        let next = self.probe.load(Relaxed);
        self.status(now) == Status::HalfOpen
            && next <= now
            && self
                .probe
                .compare_exchange(
                    next,
                    now + PROBE_PATIENCE.as_millis() as u64,
                    Relaxed,
                    Relaxed,
                )
                .is_ok()
    }

    /// Gives it back: the request told nothing.
    pub(crate) fn release_probe(&self) {
        self.probe.store(0, Relaxed);
    }
}

/// Of a window only so many successes are counted, and as many more for each failure: a rate of
/// 99.9 % is better than any that ejects. So what is known of an endpoint that is busy and well is
/// only read, and cores can share it.
const ENOUGH: u32 = 1_000;

#[derive(Clone, Copy)]
struct Packed(u64);

const COUNT: u64 = (1 << 20) - 1;

impl Packed {
    fn new(number: u16, in_a_row: u32, succeeded: u32, failed: u32) -> Self {
        Self(
            u64::from(number) << 48
                | u64::from(in_a_row.min(255)) << 40
                | u64::from(succeeded) << 20
                | u64::from(failed),
        )
    }

    fn number(self) -> u16 {
        (self.0 >> 48) as u16
    }

    fn in_a_row(self) -> u32 {
        (self.0 >> 40) as u32 & 255
    }

    fn succeeded(self) -> u32 {
        (self.0 >> 20 & COUNT) as u32
    }

    fn failed(self) -> u32 {
        (self.0 & COUNT) as u32
    }

    fn plus_success(self) -> Self {
        let (succeeded, failed) = self.with_room();
        Self::new(self.number(), 0, succeeded + 1, failed)
    }

    fn plus_failure(self) -> Self {
        let (succeeded, failed) = self.with_room();
        Self::new(self.number(), self.in_a_row() + 1, succeeded, failed + 1)
    }

    /// The counts; if one is full, both are halved, so that their ratio stays.
    fn with_room(self) -> (u32, u32) {
        let (succeeded, failed) = (self.succeeded(), self.failed());
        match u64::from(succeeded.max(failed)) == COUNT {
            true => (succeeded / 2, failed / 2),
            false => (succeeded, failed),
        }
    }

    /// Whether there are so many successes for each failure that another one changes nothing.
    #[inline]
    fn is_beyond_doubt(self) -> bool {
        self.in_a_row() == 0 && self.succeeded() >= ENOUGH * (self.failed() + 1)
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
        let conduct = Conduct::default();
        for now in [1_000, 2_000] {
            conduct.count_failure(now);
        }
        conduct.count_success(Some(3_000));
        let tally = conduct.count_failure(11_000);
        let expected = Tally {
            in_a_row: 1,
            succeeded: 1,
            failed: 3,
        };
        assert_eq!(tally, expected);
        // Two windows on, all that is forgotten, but not what came in a row.
        assert_eq!(conduct.count_failure(31_000).in_a_row, 2);
        assert_eq!(conduct.recent_counts(), (0, 1));
    }

    #[test]
    fn a_full_counter_keeps_the_ratio() {
        let full = Packed::new(0, 0, COUNT as u32, COUNT as u32 / 2);
        let next = full.plus_success();
        assert_eq!(next.succeeded(), COUNT as u32 / 2 + 1);
        assert_eq!(next.failed(), COUNT as u32 / 4);
    }

    #[test]
    fn successes_are_counted_while_they_make_a_difference() {
        let conduct = Conduct::default();
        let succeed = |times| (0..times).for_each(|_| conduct.count_success(Some(1)));
        succeed(5_000);
        assert_eq!(conduct.recent_counts(), (ENOUGH, 0));
        // After a failure they count again, the first of them at once.
        conduct.count_failure(1);
        succeed(5_000);
        assert_eq!(conduct.recent_counts(), (2 * ENOUGH, 1));
        assert_eq!(conduct.count_failure(1).in_a_row, 1);
        // In the next window too.
        conduct.count_success(Some(WINDOW_MILLIS));
        assert_eq!(conduct.recent_counts(), (2 * ENOUGH + 1, 2));
    }

    #[test]
    fn one_probe_goes_at_a_time() {
        let conduct = Conduct::default();
        conduct.eject(Some(1_000));
        assert!(!conduct.claim_probe(999));
        assert!(conduct.claim_probe(1_000));
        assert!(!conduct.claim_probe(1_001));
        conduct.release_probe();
        assert!(conduct.claim_probe(1_002));
        // One of which nothing is ever heard doesn't block for good.
        assert!(conduct.claim_probe(6_002));
    }
}
