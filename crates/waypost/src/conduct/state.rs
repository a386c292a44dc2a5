use std::{
    sync::{Arc, atomic::AtomicI32},
    time::Duration,
};

use tokio::time::Instant;

use super::{CountedBy, Fleet, Seat, latency::PeakEwma, tally::Conduct};

/// What is known of one endpoint and outlives an update. A line of memory of its own, so that two
/// busy endpoints don't slow each other down.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct EndpointState {
    /// Those requests in flight that all cores were told of.
    in_flight: AtomicI32,
    /// Tenths of a second after the fleet's birth; 0 for those of the first answer.
    first_seen: u32,
    pub(crate) latency: PeakEwma,
    pub(crate) conduct: Conduct,
    pub(crate) fleet: Arc<Fleet>,
}

impl EndpointState {
    pub(crate) fn new(fleet: &Arc<Fleet>, in_first_answer: bool) -> Self {
        Self {
            in_flight: AtomicI32::new(0),
            first_seen: match in_first_answer {
                true => 0,
                false => ((fleet.millis(Instant::now()) / 100) as u32).max(1),
            },
            latency: PeakEwma::default(),
            conduct: Conduct::default(),
            fleet: Arc::clone(fleet),
        }
    }

    /// Counts a request that begins, at the endpoint's seat.
    #[inline]
    pub(crate) fn begin(&self, seat: &Seat, by: CountedBy) {
        seat.count(&self.in_flight, by, 1);
    }

    /// Takes it back.
    #[inline]
    pub(crate) fn end(&self, seat: &Seat, by: CountedBy) {
        seat.count(&self.in_flight, by, -1);
    }

    /// How many requests are in flight, as far as this core knows.
    #[inline]
    pub(crate) fn in_flight_here(&self, seat: &Seat) -> usize {
        seat.known_here(&self.in_flight)
    }

    /// How many requests are in flight.
    pub(crate) fn in_flight(&self, seat: &Seat) -> usize {
        seat.known_to_all(&self.in_flight)
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
