//! A latency average that reacts at once to slow responses.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Time constant of the decay: after this time without a sample, e⁻¹ of a peak is left. Finagle and
/// tower use the same.
const DECAY_MILLIS: f32 = 10_000.0;

/// A failed request counts as a latency of at least this many seconds, and at least four times the
/// current average, up to a minute: an endpoint that fails fast must not look fast.
const FAILURE_PENALTY: f32 = 0.25;
const FAILURE_FACTOR: f32 = 4.0;
const FAILURE_MAX: f32 = 60.0;

/// A moving average of latencies that jumps up to a peak and decays slowly (Finagle's "Peak EWMA"),
/// in one word: seconds as `f32`, and the time of the last sample in milliseconds modulo 2³².
///
/// Reading changes nothing: the decay since the last sample is computed for the reader.
#[derive(Debug, Default)]
pub(crate) struct PeakEwma(AtomicU64);

impl PeakEwma {
    /// The average in seconds, decayed to `now`; `None` before the first sample.
    pub(crate) fn estimate(&self, now: u64) -> Option<f32> {
        let (value, sampled) = unpack(self.0.load(Relaxed));
        (value > 0.0).then(|| value * decay(elapsed(now, sampled)))
    }

    /// This average and another, decayed to the time of the later sample. Their ratio is the same at
    /// any later time. If one of them has no sample, both are 1.
    #[inline]
    pub(crate) fn compare(&self, other: &Self) -> (f32, f32) {
        let (value_a, sampled_a) = unpack(self.0.load(Relaxed));
        let (value_b, sampled_b) = unpack(other.0.load(Relaxed));
        if value_a == 0.0 || value_b == 0.0 {
            return (1.0, 1.0);
        }
        // Both factors are computed: which one is older can't be predicted by the processor.
        let lead = sampled_a.wrapping_sub(sampled_b) as i32 as f32;
        (value_a * decay(-lead), value_b * decay(lead))
    }

    #[inline]
    pub(crate) fn succeeded(&self, seconds: f32, now: u64) {
        self.add(now, |_| seconds);
    }

    pub(crate) fn failed(&self, seconds: f32, now: u64) {
        self.add(now, |value| {
            let penalty = (value * FAILURE_FACTOR).clamp(FAILURE_PENALTY, FAILURE_MAX);
            seconds.max(penalty)
        });
    }

    /// Records a request that its caller abandoned after this time; its latency would have been longer.
    pub(crate) fn abandoned(&self, seconds: f32, now: u64) {
        self.add(now, |value| seconds.max(value));
    }

    #[inline]
    fn add(&self, now: u64, sample: impl Fn(f32) -> f32) {
        let mut old = self.0.load(Relaxed);
        loop {
            let (value, sampled) = unpack(old);
            // Never 0, which means "no sample yet".
            let sample = sample(value).max(1e-9);
            let new = if sample > value {
                sample
            } else {
                let kept = decay(elapsed(now, sampled));
                value * kept + sample * (1.0 - kept)
            };
            let packed = u64::from(new.to_bits()) << 32 | now & 0xffff_ffff;
            // Of many samples in one millisecond, only a peak changes the word. So the cache line of a
            // busy endpoint is rarely written, and cores can share it.
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

/// Milliseconds from `sampled` to `now`.
#[inline]
fn elapsed(now: u64, sampled: u32) -> f32 {
    (now as u32).wrapping_sub(sampled) as i32 as f32
}

/// The share that is left after this many milliseconds, accurate to 1 in 20,000; 1 for a negative time,
/// since the clock of another thread may be slightly behind.
#[inline]
fn decay(millis: f32) -> f32 {
    let x = millis.max(0.0) * (1.0 / DECAY_MILLIS);
    if x < 0.0625 {
        // Three terms of the series suffice for a short time.
        1.0 - x * (1.0 - 0.5 * x)
    } else {
        (-x).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_jumps_to_a_peak_and_decays_slowly() {
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
        // Reading changes nothing.
        let later = ewma.estimate(60_000);
        assert_eq!(ewma.estimate(60_000), later);
        assert!(later.unwrap() < 0.01);
    }

    #[test]
    fn a_comparison_holds_at_any_later_time() {
        let (a, b) = (PeakEwma::default(), PeakEwma::default());
        assert_eq!(a.compare(&b), (1.0, 1.0));
        a.succeeded(0.080, 1_000);
        assert_eq!(a.compare(&b), (1.0, 1.0));
        for sampled in [1_000, 1_003, 1_700, 9_000, 60_000] {
            let b = PeakEwma::default();
            b.succeeded(0.020, sampled);
            let (cost_a, cost_b) = a.compare(&b);
            for now in [sampled, sampled + 1, sampled + 5_000] {
                let ratio = a.estimate(now).unwrap() / b.estimate(now).unwrap();
                assert!(
                    (cost_a / cost_b / ratio - 1.0).abs() < 1e-3,
                    "{sampled} {now}"
                );
            }
            assert_eq!(b.compare(&a), (cost_b, cost_a));
        }
    }

    #[test]
    fn fast_failures_raise_the_average() {
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
        assert_eq!(ewma.estimate(0), Some(FAILURE_MAX));
    }
}
