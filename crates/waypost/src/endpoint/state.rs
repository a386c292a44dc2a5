//! The state that this process keeps for an endpoint, across updates from the registry.

use std::sync::Arc;
use std::sync::atomic::AtomicI32;

use tokio::time::Instant;
use waypost_core::ServiceName;

use super::clock::SampledClock;
use super::in_flight::InFlightCounters;
use super::latency::PeakEwma;
use crate::outlier::{Ejection, OutcomeWindow, OutlierDetection, OutlierDetector};
use crate::shard::CacheLine;
use crate::telemetry::ServiceMetrics;

/// The state that the endpoints of one service share.
#[derive(Debug)]
pub(crate) struct EndpointGroup {
    pub(crate) clock: SampledClock,
    pub(crate) detector: OutlierDetector,
    pub(super) in_flight: InFlightCounters,
    pub(crate) metrics: ServiceMetrics,
}

impl EndpointGroup {
    /// The current time in milliseconds since the start of the group, at least 1.
    pub(super) fn now(&self) -> u64 {
        self.clock.millis(Instant::now()).max(1)
    }

    pub(crate) fn new(service: ServiceName, options: OutlierDetection) -> Self {
        Self {
            metrics: ServiceMetrics::of(&service),
            clock: SampledClock::new(),
            detector: OutlierDetector::new(service, options),
            in_flight: InFlightCounters::default(),
        }
    }
}

/// The state of one endpoint. It has cache lines of its own, so that two busy endpoints don't slow each
/// other down: one that each lease of few endpoints writes, and one that leases mostly read.
#[derive(Debug)]
pub(crate) struct EndpointState {
    /// The requests in flight that were flushed by the cores; the others are in the endpoint's
    /// [`InFlightCounter`](super::in_flight::InFlightCounter).
    pub(super) flushed: CacheLine<AtomicI32>,
    pub(crate) latency: PeakEwma,
    pub(crate) outcomes: OutcomeWindow,
    pub(crate) ejection: Ejection,
    pub(crate) group: Arc<EndpointGroup>,
}

impl EndpointState {
    pub(super) fn new(group: &Arc<EndpointGroup>) -> Self {
        Self {
            flushed: CacheLine(AtomicI32::new(0)),
            latency: PeakEwma::default(),
            outcomes: OutcomeWindow::default(),
            ejection: Ejection::default(),
            group: Arc::clone(group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_fills_two_cache_lines() {
        assert_eq!(size_of::<EndpointState>(), 128);
    }
}
