use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use tokio::time::Instant;

use super::Fleet;
use super::latency::PeakEwma;
use super::tally::Conduct;

/// What is known of one endpoint and outlives an update. A line of memory of its own, so that two
/// busy endpoints don't slow each other down.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct EndpointState {
    /// Those requests in flight that all cores were told of; the endpoint's [`Seat`](super::Seat)
    /// counts the others.
    pub(crate) told: AtomicI32,
    /// Tenths of a second after the fleet's birth; 0 for those of the first answer.
    first_seen: u32,
    pub(crate) latency: PeakEwma,
    pub(crate) conduct: Conduct,
    pub(crate) fleet: Arc<Fleet>,
}

impl EndpointState {
    pub(crate) fn new(fleet: &Arc<Fleet>, in_first_answer: bool) -> Self {
        Self {
            told: AtomicI32::new(0),
            first_seen: match in_first_answer {
                true => 0,
                false => ((fleet.millis(Instant::now()) / 100) as u32).max(1),
            },
            latency: PeakEwma::default(),
            conduct: Conduct::default(),
            fleet: Arc::clone(fleet),
        }
    }

    /// How long it has been known, if it came after the first answer.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        let first_seen = u64::from(self.first_seen) * 100;
        (first_seen > 0).then(|| {
            let now = self.fleet.millis(now);
            Duration::from_millis(now.saturating_sub(first_seen))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_fits_a_line_of_memory() {
        assert_eq!(size_of::<EndpointState>(), 64);
    }
}
