//! A lease: one request in flight on an endpoint, and its outcome.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::Instance;

use super::held::HeldEndpoint;
use crate::endpoint::{CountedBy, Endpoint, EndpointGroup};
use crate::outlier::Outcome;

/// An endpoint chosen for one request. The request counts as in flight while the lease is held.
///
/// Report how the request ended: outlier detection and latency-aware strategies depend on it. If a
/// lease is dropped without an outcome, because its caller gave up or was cancelled, the time that it
/// was held counts as a lower bound of the latency, and after
/// [`abandoned_after`](crate::outlier::OutlierDetection::abandoned_after) as a consecutive failure.
///
/// ```
/// # fn example(pick: waypost::Pick) {
/// let lease = pick.lease();
/// // ... send the request to lease.url() ...
/// lease.succeeded();
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the request counts as in flight only while the lease is held"]
pub struct Lease {
    held: HeldEndpoint,
    counted_by: CountedBy,
    timing: Timing,
    is_trial: bool,
    has_outcome: AtomicBool,
}

/// Whether the latency of a request is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timing {
    /// This thread measures only a sample of its requests, and not this one.
    NotSampled,
    /// Measured from this time.
    Since(Instant),
}

impl Timing {
    #[inline]
    pub(crate) fn start(group: &EndpointGroup) -> Self {
        group.clock.sample().map_or(Self::NotSampled, Self::Since)
    }
}

impl Lease {
    /// A lease on an endpoint where the request is already counted.
    #[inline(always)]
    pub(crate) fn new(
        held: HeldEndpoint,
        counted_by: CountedBy,
        timing: Timing,
        is_trial: bool,
    ) -> Self {
        Self {
            held,
            counted_by,
            timing,
            is_trial,
            has_outcome: AtomicBool::new(false),
        }
    }

    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.held.endpoint()
    }

    /// Reports success: the endpoint responded.
    #[inline]
    pub fn succeeded(&self) {
        self.record(Outcome::Succeeded);
    }

    /// Reports a failure caused by the endpoint; see [`Outcome::Failed`].
    pub fn failed(&self) {
        self.record(Outcome::Failed);
    }

    /// Reports that the endpoint is overloaded; see [`Outcome::Rejected`].
    pub fn rejected(&self, retry_after: Option<Duration>) {
        self.record(Outcome::Rejected { retry_after });
    }

    /// Reports how the request ended. Its latency is the time since the lease was taken. A thread that
    /// takes more than 16 leases within a millisecond measures one in 16, since reading the clock costs
    /// as much as the rest of a lease.
    #[inline]
    pub fn record(&self, outcome: Outcome) {
        let state = self.endpoint().state();
        let group = &state.group;
        if let (Timing::NotSampled, Outcome::Succeeded) = (self.timing, outcome)
            && group
                .detector
                .record_success(&state.outcomes, &state.ejection)
        {
            self.has_outcome.store(true, Relaxed);
            group.metrics.outcome(outcome, || None);
            return;
        }
        self.record_at(outcome, Instant::now());
    }

    /// Reports how the request ended, for a caller that has read the clock.
    #[inline]
    pub fn record_at(&self, outcome: Outcome, now: Instant) {
        self.has_outcome.store(true, Relaxed);
        let endpoint = self.endpoint();
        let state = endpoint.state();
        let millis = state.group.clock.millis(now);
        let seconds = |started| now.saturating_duration_since(started).as_secs_f32();
        state.group.metrics.outcome(outcome, || match self.timing {
            Timing::NotSampled => None,
            Timing::Since(started) => Some(now.saturating_duration_since(started)),
        });
        match (outcome, self.timing) {
            (Outcome::Succeeded, Timing::NotSampled) => {}
            (Outcome::Succeeded, Timing::Since(started)) => {
                state.latency.succeeded(seconds(started), millis);
            }
            // Failures always count, with the penalty alone if they weren't timed.
            (_, Timing::NotSampled) => state.latency.failed(0.0, millis),
            (_, Timing::Since(started)) => state.latency.failed(seconds(started), millis),
        }
        state
            .group
            .detector
            .record(endpoint.view_at(millis), outcome);
    }
}

impl Deref for Lease {
    type Target = Instance;

    #[inline]
    fn deref(&self) -> &Instance {
        self.endpoint().instance()
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        let has_outcome = *self.has_outcome.get_mut();
        let endpoint: &Endpoint = self.endpoint();
        endpoint.end(self.counted_by);
        endpoint.state().group.metrics.request_ended(!has_outcome);
        if !has_outcome && let Timing::Since(started) = self.timing {
            abandon(endpoint, started, self.is_trial);
        }
    }
}

/// Records that a lease was dropped without an outcome. It is a function that is never inlined, and not
/// a method, because a lease whose address is taken is kept in memory instead of registers, which doubles
/// its cost.
#[cold]
#[inline(never)]
fn abandon(endpoint: &Endpoint, started: Instant, is_trial: bool) {
    let now = Instant::now();
    let age = now.saturating_duration_since(started);
    let (state, view) = (endpoint.state(), endpoint.view(now));
    state.latency.abandoned(age.as_secs_f32(), view.now);
    let detector = &state.group.detector;
    detector.record_abandoned(view, age, is_trial);
}
