use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::Instance;

use super::owner::Owner;
use crate::conduct::{CountedBy, Fleet, Outcome};
use crate::snapshot::Endpoint;

/// An endpoint chosen for one request. As long as it is held, the request counts as in flight.
///
/// Tell it how the request went: that is what outlier detection and latency-aware strategies live
/// on. A lease that is dropped without a word says nothing about the endpoint, neither good nor
/// bad.
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
    owner: Owner,
    counted_by: CountedBy,
    timing: Timing,
    probe: bool,
}

/// Whether a request's latency is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Timing {
    /// No strategy wants to know it.
    Unwanted,
    /// So many are measured just now that this one isn't.
    LeftOut,
    Since(Instant),
}

impl Timing {
    #[inline]
    pub(crate) fn begin(fleet: &Fleet) -> Self {
        fleet.look_at_clock().map_or(Self::LeftOut, Self::Since)
    }
}

impl Lease {
    /// On an endpoint where it is counted already.
    #[inline(always)]
    pub(crate) fn new(owner: Owner, counted_by: CountedBy, timing: Timing, probe: bool) -> Self {
        Self {
            owner,
            counted_by,
            timing,
            probe,
        }
    }

    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.owner.endpoint()
    }

    /// The request was answered.
    #[inline]
    pub fn succeeded(&self) {
        self.record(Outcome::Succeeded);
    }

    /// The request failed, and the endpoint is to blame: see [`Outcome::Failed`].
    pub fn failed(&self) {
        self.record(Outcome::Failed);
    }

    /// The endpoint has too much to do: see [`Outcome::Rejected`].
    pub fn rejected(&self, retry_after: Option<Duration>) {
        self.record(Outcome::Rejected { retry_after });
    }

    /// Tells how the request went. Its latency is the time since the lease was taken, if the
    /// strategy measures that; a thread that takes more than 16 leases in a millisecond measures
    /// one in 16, since a look at the clock costs as much as all the rest.
    #[inline]
    pub fn record(&self, outcome: Outcome) {
        let state = self.endpoint().state();
        let now = match (self.timing, outcome) {
            (Timing::LeftOut, Outcome::Succeeded) => None,
            (Timing::Unwanted, Outcome::Succeeded) => state.fleet.look_at_clock(),
            _ => Some(Instant::now()),
        };
        match now {
            None if state.fleet.record_success(&state.conduct) => {}
            now => self.record_at(outcome, now.unwrap_or_else(Instant::now)),
        }
    }

    /// As [`record`](Self::record), for one who knows what time it is.
    #[inline]
    pub fn record_at(&self, outcome: Outcome, now: Instant) {
        let endpoint = self.endpoint();
        let state = endpoint.state();
        let millis = state.fleet.millis(now);
        let seconds = |started| now.saturating_duration_since(started).as_secs_f32();
        match (outcome, self.timing) {
            (_, Timing::Unwanted) | (Outcome::Succeeded, Timing::LeftOut) => {}
            (Outcome::Succeeded, Timing::Since(started)) => {
                state.latency.succeeded(seconds(started), millis);
            }
            // A failure counts, however short it was.
            (_, Timing::LeftOut) => state.latency.failed(0.0, millis),
            (_, Timing::Since(started)) => state.latency.failed(seconds(started), millis),
        }
        let id = endpoint.instance().id();
        state.fleet.record(id, &state.conduct, outcome, millis);
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
        let endpoint = self.endpoint();
        endpoint.end(self.counted_by);
        if self.probe {
            endpoint.state().conduct.release_probe();
        }
    }
}
