use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::{Health, Instance};

use crate::conduct::{CountedBy, EndpointState, Fleet, Seat};

/// An instance as this process sees it: what the registry says, and what we ourselves know of it.
///
/// The second part belongs to the instance's id. It goes on when the registry says something new
/// about the instance, so that no count is lost to an update.
#[derive(Debug)]
pub struct Endpoint {
    instance: Arc<Instance>,
    state: Arc<EndpointState>,
    seat: Seat,
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

impl Endpoint {
    pub(crate) fn new(instance: Arc<Instance>, fleet: &Arc<Fleet>, in_first_answer: bool) -> Self {
        let state = EndpointState::new(fleet, in_first_answer);
        Self::with_state(instance, Arc::new(state), fleet.take_seat())
    }

    /// The same endpoint after the registry said something new about it.
    pub(crate) fn updated(&self, instance: Arc<Instance>) -> Self {
        Self::with_state(instance, Arc::clone(&self.state), self.seat.clone())
    }

    fn with_state(instance: Arc<Instance>, state: Arc<EndpointState>, seat: Seat) -> Self {
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
            seat,
        }
    }

    /// What the registry says of it.
    #[inline]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Its weight in the registry.
    pub fn weight(&self) -> f64 {
        f64::from(self.weight)
    }

    /// How many [`Lease`](crate::Lease)s on it are held right now.
    pub fn in_flight(&self) -> usize {
        self.seat.known_to_all(&self.state.told)
    }

    /// The same, as far as this core knows.
    #[inline]
    pub(crate) fn in_flight_here(&self) -> usize {
        self.seat.known_here(&self.state.told)
    }

    /// Counts a request that begins.
    #[inline]
    pub(crate) fn begin(&self, by: CountedBy) {
        self.seat.count(&self.state.told, by, 1);
    }

    /// Takes it back.
    #[inline]
    pub(crate) fn end(&self, by: CountedBy) {
        self.seat.count(&self.state.told, by, -1);
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
}
