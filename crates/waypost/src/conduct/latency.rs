use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How long the average remembers: after so long without news, e⁻¹ of a peak is left. As in
/// Finagle and Tower.
const MEMORY_MILLIS: f32 = 10_000.0;

/// A failed request counts as one of at least this many seconds, and of four times what the
/// endpoint had, up to a minute: an endpoint that fails fast must not look fast.
const PENALTY: f32 = 0.25;
const PENALTY_FACTOR: f32 = 4.0;
const PENALTY_LIMIT: f32 = 60.0;

/// A moving average of latencies that jumps up to a peak and comes down slowly (Finagle's "Peak
/// EWMA"), in one word: seconds as `f32`, and when it was told, in milliseconds modulo 2³².
///
/// Reading changes nothing: the decay since the last outcome is only projected.
#[derive(Debug, Default)]
pub(crate) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// The average in seconds, as it has decayed until now; `None` if nothing was ever measured.
    pub(crate) fn estimate(&self, now: u64) -> Option<f32> {
        let (value, told) = unpack(self.0.load(Relaxed));
        (value > 0.0).then(|| value * decay(elapsed(now, told)))
    }

    /// How this one and another compare, whatever the time: from the later news on both decay
    /// alike. One that was never measured counts as much as the other.
    #[inline]
    pub(crate) fn beside(&self, other: &Self) -> (f32, f32) {
        let (value_a, told_a) = unpack(self.0.load(Relaxed));
        let (value_b, told_b) = unpack(other.0.load(Relaxed));
        if value_a == 0.0 || value_b == 0.0 {
            return (1.0, 1.0);
        }
        // Both are computed, since nobody can guess which one is the older.
        let lead = told_a.wrapping_sub(told_b) as i32 as f32;
        (value_a * decay(-lead), value_b * decay(lead))
    }

    #[inline]
    pub(crate) fn succeeded(&self, seconds: f32, now: u64) {
        self.update(now, |_| seconds);
    }

    pub(crate) fn failed(&self, seconds: f32, now: u64) {
        self.update(now, |value| {
            let penalty = (value * PENALTY_FACTOR).clamp(PENALTY, PENALTY_LIMIT);
            seconds.max(penalty)
        });
    }

    #[inline]
    fn update(&self, now: u64, sample: impl Fn(f32) -> f32) {
        let mut old = self.0.load(Relaxed);
        loop {
            let (value, told) = unpack(old);
            // Never zero, which means "not measured".
            let sample = sample(value).max(1e-9);
            let new = match sample > value {
                true => sample,
                false => {
                    let kept = decay(elapsed(now, told));
                    value * kept + sample * (1.0 - kept)
                }
            };
            let packed = u64::from(new.to_bits()) << 32 | now & 0xffff_ffff;
            // Of many answers in one millisecond only a peak is news: what is busy is hardly ever
            // written, so that cores can share it.
            if packed == old {
                return;
            }
            match self.0.compare_exchange_weak(old, packed, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(current) => old = current,
            }
        }
    }
}

#[inline]
fn unpack(word: u64) -> (f32, u32) {
    (f32::from_bits((word >> 32) as u32), word as u32)
}

/// Milliseconds from one moment to another.
#[inline]
fn elapsed(now: u64, told: u32) -> f32 {
    (now as u32).wrapping_sub(told) as i32 as f32
}

/// What is left after so many milliseconds, to 1 in 20,000. All of it if they are negative, since
/// the clock of another thread may be a moment behind.
#[inline]
fn decay(millis: f32) -> f32 {
    let x = millis.max(0.0) * (1.0 / MEMORY_MILLIS);
    match x < 0.0625 {
        // Three terms of the series are enough for the usual pause.
        true => 1.0 - x * (1.0 - 0.5 * x),
        false => (-x).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_jumps_up_and_comes_down_slowly() {
        let ewma = PeakEwma::default();
        assert_eq!(ewma.estimate(0), None);
        ewma.succeeded(0.010, 0);
        ewma.succeeded(1.0, 1);
        assert_eq!(ewma.estimate(1), Some(1.0));
        ewma.succeeded(0.010, 1_001);
        let after_one_second = ewma.estimate(1_001).unwrap();
        assert!(
            (0.90..0.92).contains(&after_one_second),
            "{after_one_second}"
        );
        // Reading it much later, and again, changes nothing.
        let later = ewma.estimate(60_000);
        assert_eq!(ewma.estimate(60_000), later);
        assert!(later.unwrap() < 0.01);
    }

    #[test]
    fn two_compare_as_they_would_at_any_later_time() {
        let (a, b) = (PeakEwma::default(), PeakEwma::default());
        assert_eq!(a.beside(&b), (1.0, 1.0));
        a.succeeded(0.080, 1_000);
        assert_eq!(a.beside(&b), (1.0, 1.0));
        for told in [1_000, 1_003, 1_700, 9_000, 60_000] {
            let b = PeakEwma::default();
            b.succeeded(0.020, told);
            let (cost_a, cost_b) = a.beside(&b);
            for now in [told, told + 1, told + 5_000] {
                let ratio = a.estimate(now).unwrap() / b.estimate(now).unwrap();
                assert!((cost_a / cost_b / ratio - 1.0).abs() < 1e-3, "{told} {now}");
            }
            assert_eq!(b.beside(&a), (cost_b, cost_a));
        }
    }

    #[test]
    fn failing_fast_looks_slower_every_time() {
        let ewma = PeakEwma::default();
        ewma.succeeded(0.005, 0);
        let mut last = 0.005;
        for _ in 0..3 {
            ewma.failed(0.000_1, 0);
            let now = ewma.estimate(0).unwrap();
            assert!(now >= 0.25 && now > last, "{now}");
            last = now;
        }
        (0..20).for_each(|_| ewma.failed(0.000_1, 0));
        assert_eq!(ewma.estimate(0), Some(PENALTY_LIMIT));
    }
}
