//! A clock that is cheap for threads that read it very often.

use std::time::Duration;

use tokio::time::Instant;

use crate::shard::Sharded;

/// After this many reads within a millisecond a thread skips reads.
const FREQUENT: u64 = 16;

/// How many reads such a thread skips between two samples.
const SKIPPED: u64 = 15;

/// Milliseconds since the start of a group, and a sampled reading of the current time.
///
/// Reading the operating system's clock takes longer than the rest of a pick with its lease. So a
/// thread that reads it more than 16 times within a millisecond samples it: only one in 16 reads returns
/// the time, until a millisecond has fewer reads. Otherwise every read returns the time.
#[derive(Debug)]
pub(crate) struct SampledClock {
    start: Instant,
    /// Per shard: the millisecond of the last read (32 bits), the reads in it (16), and how many
    /// reads are still to be skipped (16).
    reads: Sharded,
}

impl SampledClock {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            reads: Sharded::new(|_| 0),
        }
    }

    /// Milliseconds from the start to `time`.
    #[inline]
    pub(crate) fn millis(&self, time: Instant) -> u64 {
        let since = time.saturating_duration_since(self.start);
        since.as_secs() * 1_000 + u64::from(since.subsec_millis())
    }

    /// The time at this many milliseconds after the start.
    pub(crate) fn instant(&self, millis: u64) -> Instant {
        let since = Duration::from_millis(millis);
        // Ejections are limited to ten years, which every clock can represent.
        self.start.checked_add(since).unwrap_or(self.start)
    }

    /// Samples the clock: the current time, or `None` if this read is skipped.
    #[inline]
    pub(crate) fn sample(&self) -> Option<Instant> {
        self.reads.replace(|state| match state & 0xffff {
            0 => {
                let now = Instant::now();
                (after_read(state, self.millis(now)), Some(now))
            }
            _ => (state - 1, None),
        })
    }
}

fn after_read(state: u64, millis: u64) -> u64 {
    let millis = millis & 0xffff_ffff;
    let reads = if state >> 32 == millis {
        ((state >> 16 & 0xffff) + 1).min(FREQUENT)
    } else {
        1
    };
    let skip = if reads == FREQUENT { SKIPPED } else { 0 };
    millis << 32 | reads << 16 | skip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn infrequent_reads_always_return_the_time() {
        let clock = SampledClock::new();
        for _ in 0..100 {
            assert!((0..15).all(|_| clock.sample() == Some(Instant::now())));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frequent_reads_are_sampled_one_in_sixteen() {
        let clock = SampledClock::new();
        let sampled = |reads: usize| (0..reads).filter(|_| clock.sample().is_some()).count();
        assert_eq!(sampled(16), 16);
        assert_eq!(sampled(160), 10);
        // When the rate falls, only the remaining reads of the current period are skipped.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(sampled(15 + 10), 10);
    }
}
