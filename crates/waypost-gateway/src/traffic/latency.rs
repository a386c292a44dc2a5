//! A histogram of latencies.

use std::time::Duration;

/// The upper bounds of the ranges in microseconds, from 100 us to 5 minutes. Each is about a quarter
/// larger than the one before, so a quantile is too high by at most a quarter.
pub(crate) const BOUNDS: [u32; RANGES - 1] = bounds();

const RANGES: usize = 68;

/// The number of requests in each range. The last range has no upper bound.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    ranges: [u32; RANGES],
    /// The sum of all latencies, in microseconds.
    pub(crate) sum: u64,
}

const fn bounds() -> [u32; RANGES - 1] {
    let mut bounds = [0; RANGES - 1];
    let (mut at, mut bound) = (0, 100);
    while at < RANGES - 1 {
        bounds[at] = bound;
        bound += bound / 4;
        at += 1;
    }
    bounds
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            ranges: [0; RANGES],
            sum: 0,
        }
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, time: Duration) {
        let micros = time.as_micros().try_into().unwrap_or(u32::MAX);
        let range = BOUNDS.partition_point(|bound| *bound < micros);
        self.ranges[range] += 1;
        self.sum += u64::from(micros);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (range, count) in self.ranges.iter_mut().zip(&other.ranges) {
            *range = range.saturating_add(*count);
        }
        self.sum += other.sum;
    }

    /// The number of requests that took at most each of [`BOUNDS`].
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (u32, u64)> {
        let mut sum = 0;
        BOUNDS.iter().zip(&self.ranges).map(move |(bound, count)| {
            sum += u64::from(*count);
            (*bound, sum)
        })
    }

    /// A quantile of the latency, in milliseconds.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        let all: u64 = self.ranges.iter().map(|count| u64::from(*count)).sum();
        let wanted = (all as f64 * share).ceil() as u64;
        if all == 0 {
            return 0.0;
        }
        let found = self.cumulative().find(|(_, sum)| *sum >= wanted);
        let bound = found.map_or(BOUNDS[RANGES - 2], |(bound, _)| bound);
        f64::from(bound) / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_reach_five_minutes() {
        assert!(BOUNDS[RANGES - 2] > 240_000_000, "{BOUNDS:?}");
        assert!(BOUNDS.is_sorted());
    }

    #[test]
    fn a_quantile_is_right_within_a_quarter() {
        let mut latencies = Latencies::default();
        for ms in 1..=1000 {
            latencies.record(Duration::from_millis(ms));
        }
        for (share, exact) in [(0.5, 500.0), (0.99, 990.0)] {
            let read = latencies.quantile_ms(share);
            assert!(read >= exact && read <= exact * 1.26, "{share}: {read}");
        }
        assert_eq!(Latencies::default().quantile_ms(0.5), 0.0);
        latencies.record(Duration::from_secs(3600));
        assert!(latencies.quantile_ms(1.0) > 200_000.0);
    }
}
