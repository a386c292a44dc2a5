use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Health, Instance};
use crate::balance::{Conduct, Fleet, PeakEwma};

/// An instance as this process sees it: what the registry says, and what we ourselves know of it.
///
/// The second part belongs to the instance's id. It goes on when the registry says something new
/// about the instance, so that no count is lost to an update.
#[derive(Debug)]
pub struct Endpoint {
    instance: Arc<Instance>,
    state: Arc<EndpointState>,
    /// Copies, so that weighing ten thousand endpoints reads one line of memory of each.
    standing: Standing,
    weight: u16,
}

/// What the registry says of an endpoint, in the order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Ready,
    Drained,
    Draining,
    Critical,
}

/// What outlives an update. A line of memory of its own, so that two busy endpoints don't slow
/// each other down.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct EndpointState {
    in_flight: AtomicU32,
    /// Tenths of a second after the fleet's birth; 0 for those of the first answer.
    first_seen: u32,
    pub(crate) latency: PeakEwma,
    pub(crate) conduct: Conduct,
    pub(crate) fleet: Arc<Fleet>,
}

impl Endpoint {
    pub(crate) fn new(instance: Arc<Instance>, fleet: &Arc<Fleet>, in_first_answer: bool) -> Self {
        let state = EndpointState {
            in_flight: AtomicU32::new(0),
            first_seen: match in_first_answer {
                true => 0,
                false => ((fleet.millis(Instant::now()) / 100) as u32).max(1),
            },
            latency: PeakEwma::default(),
            conduct: Conduct::default(),
            fleet: Arc::clone(fleet),
        };
        Self::with_state(instance, Arc::new(state))
    }

    /// The same endpoint after the registry said something new about it.
    pub(crate) fn updated(&self, instance: Arc<Instance>) -> Self {
        Self::with_state(instance, Arc::clone(&self.state))
    }

    fn with_state(instance: Arc<Instance>, state: Arc<EndpointState>) -> Self {
        let standing = match instance.health() {
            Health::Critical => Standing::Critical,
            Health::Draining => Standing::Draining,
            _ if instance.weight().is_drained() => Standing::Drained,
            _ => Standing::Ready,
        };
        Self {
            weight: instance.weight().get() as u16,
            standing,
            instance,
            state,
        }
    }

    /// What the registry says of it.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Its weight in the registry.
    pub fn weight(&self) -> f64 {
        f64::from(self.weight)
    }

    /// How many [`Lease`](crate::Lease)s on it are held right now.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Relaxed) as usize
    }

    /// Its moving average of latencies, if a strategy that measures them has used it. It rises at
    /// once with a slow answer and falls slowly; a failed call counts as a slow one.
    pub fn latency(&self) -> Option<Duration> {
        let now = self.state.fleet.millis(Instant::now());
        self.state
            .latency
            .estimate(now)
            .map(Duration::from_secs_f32)
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    #[inline]
    pub(crate) fn state(&self) -> &EndpointState {
        &self.state
    }

    /// How long it has been known, if it came after the first answer.
    pub(crate) fn age(&self, now: Instant) -> Option<Duration> {
        let first_seen = u64::from(self.state.first_seen) * 100;
        (first_seen > 0).then(|| {
            let now = self.state.fleet.millis(now);
            Duration::from_millis(now.saturating_sub(first_seen))
        })
    }

    pub(crate) fn begin(&self) {
        self.state.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.state.in_flight.fetch_sub(1, Ordering::Relaxed);
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
