use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    #[inline]
    pub(crate) fn estimate(&self, now: u64) -> Option<f32> {
        let (value, told) = unpack(self.0.load(Relaxed));
        (value > 0.0).then(|| value * decay(now, told))
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
                    let kept = decay(now, told);
                    value * kept + sample * (1.0 - kept)
                }
            };
            let packed = u64::from(new.to_bits()) << 32 | now & 0xffff_ffff;
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

#[inline]
fn decay(now: u64, told: u32) -> f32 {
    let elapsed = (now as u32).wrapping_sub(told);
    match elapsed {
        0 => 1.0,
        // The clock of another thread may be a moment behind.
        _ if elapsed > u32::MAX / 2 => 1.0,
        _ => (-(elapsed as f32) / MEMORY_MILLIS).exp(),
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
