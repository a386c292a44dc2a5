//! What this process knows of an endpoint, kept across updates from the registry.

use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::ServiceName;

use super::clock::SampledClock;
use super::in_flight::InFlightCounters;
use super::latency::PeakEwma;
use crate::outlier::{Ejection, OutcomeWindow, OutlierDetection, OutlierDetector};

/// What the endpoints of one service share.
#[derive(Debug)]
pub(crate) struct EndpointGroup {
    pub(crate) clock: SampledClock,
    pub(crate) detector: OutlierDetector,
    pub(super) in_flight: InFlightCounters,
}

impl EndpointGroup {
    pub(crate) fn new(service: ServiceName, options: OutlierDetection) -> Self {
        Self {
            clock: SampledClock::new(),
            detector: OutlierDetector::new(service, options),
            in_flight: InFlightCounters::default(),
        }
    }
}

/// What is known of one endpoint. It fills one cache line, so that two busy endpoints don't slow
/// each other down.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct EndpointState {
    /// The requests in flight that were flushed by the cores; the others are in the endpoint's
    /// [`InFlightCounter`](super::in_flight::InFlightCounter).
    pub(super) flushed: AtomicI32,
    /// Tenths of a second after the start of the group; 0 for endpoints of the first answer.
    first_seen: u32,
    pub(crate) latency: PeakEwma,
    pub(crate) outcomes: OutcomeWindow,
    pub(crate) ejection: Ejection,
    pub(crate) group: Arc<EndpointGroup>,
}

impl EndpointState {
    pub(super) fn new(group: &Arc<EndpointGroup>, in_first_answer: bool) -> Self {
        let first_seen = if in_first_answer {
            0
        } else {
            ((group.clock.millis(Instant::now()) / 100) as u32).max(1)
        };
        Self {
            flushed: AtomicI32::new(0),
            first_seen,
            latency: PeakEwma::default(),
            outcomes: OutcomeWindow::default(),
            ejection: Ejection::default(),
            group: Arc::clone(group),
        }
    }

    /// How long the endpoint has been known; `None` if it was in the first answer.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        let first_seen = u64::from(self.first_seen) * 100;
        (first_seen > 0).then(|| {
            let now = self.group.clock.millis(now);
            Duration::from_millis(now.saturating_sub(first_seen))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_fills_one_cache_line() {
        assert_eq!(size_of::<EndpointState>(), 64);
    }
}
