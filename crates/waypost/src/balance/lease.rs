use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{conduct::Outcome, model::Instance, snapshot::Endpoint};

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
    endpoint: Arc<Endpoint>,
    /// Set if the strategy wants to know latencies.
    started: Option<Instant>,
    probe: bool,
}

impl Lease {
    pub(crate) fn new(endpoint: Arc<Endpoint>, started: Option<Instant>, probe: bool) -> Self {
        endpoint.state().begin();
        Self {
            endpoint,
            started,
            probe,
        }
    }

    /// The endpoint that was chosen.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// The request was answered.
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
    /// strategy measures that.
    pub fn record(&self, outcome: Outcome) {
        self.record_at(outcome, Instant::now());
    }

    /// As [`record`](Self::record), for one who knows what time it is.
    #[inline]
    pub fn record_at(&self, outcome: Outcome, now: Instant) {
        let state = self.endpoint.state();
        let millis = state.fleet.millis(now);
        if let Some(started) = self.started {
            let seconds = now.saturating_duration_since(started).as_secs_f32();
            match outcome {
                Outcome::Succeeded => state.latency.succeeded(seconds, millis),
                Outcome::Failed | Outcome::Rejected { .. } => state.latency.failed(seconds, millis),
            }
        }
        let id = self.endpoint.instance().id();
        state.fleet.record(id, &state.conduct, outcome, millis);
    }
}

impl Deref for Lease {
    type Target = Instance;

    #[inline]
    fn deref(&self) -> &Instance {
        self.endpoint.instance()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.state().end();
        if self.probe {
            self.endpoint.state().conduct.release_probe();
        }
    }
}
