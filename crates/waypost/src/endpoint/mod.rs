//! An endpoint: an instance from the registry, and the state that this process keeps for it.
//!
//! The state (requests in flight, latency, recent outcomes, ejection) belongs to the instance's id and
//! is kept across updates. It is written by leases and read by strategies.

mod clock;
mod in_flight;
mod latency;
mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::{Health, Instance};

use self::in_flight::InFlightCounter;
use crate::outlier::EndpointView;

pub(crate) use in_flight::CountedBy;
pub(crate) use state::{EndpointGroup, EndpointState};

/// An instance from the registry, with the state that this process keeps for it: requests in flight,
/// latency, outcomes and ejection.
///
/// The state is kept when the registry changes the instance, so an update loses no counts.
#[derive(Debug)]
pub struct Endpoint {
    instance: Arc<Instance>,
    state: Arc<EndpointState>,
    in_flight: InFlightCounter,
    /// Copies, so that weighing ten thousand endpoints reads one cache line of each.
    registry_state: RegistryState,
    weight: u16,
    /// When it last became ready, in milliseconds since the start of the group; 0 if it was ready in
    /// the first answer.
    ready_since: u64,
}

/// Whether an endpoint takes new work according to the registry, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RegistryState {
    /// Healthy, with a weight above 0.
    Ready,
    /// Healthy, with a weight of 0.
    Drained,
    /// Shutting down, still serving.
    Draining,
    /// Failing its checks.
    Critical,
}

impl Endpoint {
    pub(crate) fn new(
        instance: Arc<Instance>,
        group: &Arc<EndpointGroup>,
        in_first_answer: bool,
    ) -> Self {
        let state = Arc::new(EndpointState::new(group));
        let endpoint = Self::with_state(instance, state, group.in_flight.allocate());
        let is_established = in_first_answer && endpoint.registry_state == RegistryState::Ready;
        Self {
            ready_since: if is_established { 0 } else { group.now() },
            ..endpoint
        }
    }

    /// The same endpoint after the registry changed the instance.
    pub(crate) fn updated(&self, instance: Arc<Instance>) -> Self {
        let state = Arc::clone(&self.state);
        let updated = Self::with_state(instance, state, self.in_flight.clone());
        let became_ready = updated.registry_state == RegistryState::Ready
            && self.registry_state != RegistryState::Ready;
        Self {
            ready_since: if became_ready {
                self.state.group.now()
            } else {
                self.ready_since
            },
            ..updated
        }
    }

    fn with_state(
        instance: Arc<Instance>,
        state: Arc<EndpointState>,
        in_flight: InFlightCounter,
    ) -> Self {
        let registry_state = match instance.health() {
            Health::Critical => RegistryState::Critical,
            Health::Draining => RegistryState::Draining,
            _ if instance.weight().is_drained() => RegistryState::Drained,
            _ => RegistryState::Ready,
        };
        Self {
            weight: instance.weight().get() as u16,
            registry_state,
            instance,
            state,
            in_flight,
            ready_since: 0,
        }
    }

    /// The instance in the registry.
    #[inline]
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The weight in the registry.
    pub fn weight(&self) -> f64 {
        f64::from(self.weight)
    }

    /// The number of [`Lease`](crate::Lease)s held on this endpoint now.
    pub fn in_flight(&self) -> usize {
        self.in_flight.sum(&self.state.flushed.0)
    }

    /// The number of leases that this core sees.
    #[inline]
    pub(crate) fn in_flight_estimate(&self) -> usize {
        self.in_flight.estimate(&self.state.flushed.0)
    }

    /// Counts a request that begins.
    #[inline]
    pub(crate) fn begin(&self, by: CountedBy) {
        self.in_flight.add(&self.state.flushed.0, by, 1);
    }

    /// Counts a request that ends; `by` is where its beginning was counted.
    #[inline]
    pub(crate) fn end(&self, by: CountedBy) {
        self.in_flight.add(&self.state.flushed.0, by, -1);
    }

    /// The moving average of latencies; `None` before the first outcome. It rises at once with a slow
    /// response and falls slowly; a failed request counts as a slow one.
    pub fn latency(&self) -> Option<Duration> {
        let now = self.state.group.clock.millis(Instant::now());
        self.state
            .latency
            .estimate(now)
            .map(Duration::from_secs_f32)
    }

    /// How long it has been ready and not ejected; `None` if it has been since the first answer.
    pub(crate) fn ready_for(&self, now: Instant) -> Option<Duration> {
        let since = self.ready_since.max(self.state.ejection.readmitted_at());
        let now = self.state.group.clock.millis(now);
        (since > 0).then(|| Duration::from_millis(now.saturating_sub(since)))
    }

    pub(crate) fn registry_state(&self) -> RegistryState {
        self.registry_state
    }

    #[inline]
    pub(crate) fn state(&self) -> &EndpointState {
        &self.state
    }

    /// This endpoint as the outlier detector sees it at a time.
    #[inline]
    pub(crate) fn view(&self, now: Instant) -> EndpointView<'_> {
        self.view_at(self.state.group.clock.millis(now))
    }

    /// The same, at a time in milliseconds since the start of the group.
    #[inline]
    pub(crate) fn view_at(&self, now: u64) -> EndpointView<'_> {
        EndpointView {
            id: self.instance.id(),
            outcomes: &self.state.outcomes,
            ejection: &self.state.ejection,
            now,
        }
    }
}
