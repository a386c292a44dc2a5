//! Metrics with the feature `metrics`.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};
use waypost_core::{Error, ProviderErrorKind, ServiceName};

use super::ServiceState;
use crate::outlier::outcome::Outcome;

const PICKS: &str = "waypost_client_picks_total";
const PICK_ERRORS: &str = "waypost_client_pick_errors_total";
const REQUESTS: &str = "waypost_client_requests_total";
const DURATION: &str = "waypost_client_request_duration_seconds";
const IN_FLIGHT: &str = "waypost_client_requests_in_flight";
const RETRIES: &str = "waypost_client_retries_total";
const HEDGES: &str = "waypost_client_hedges_total";
const EJECTIONS: &str = "waypost_client_ejections_total";
const EJECTED: &str = "waypost_client_ejected_instances";
const INSTANCES: &str = "waypost_client_instances";
const READY: &str = "waypost_client_ready_instances";
const STALE: &str = "waypost_client_stale";
const CONFIRMED: &str = "waypost_client_confirmed_timestamp_seconds";
const WATCH_FAILURES: &str = "waypost_client_watch_failures_total";
const REGISTRATIONS: &str = "waypost_client_registration_attempts_total";
const REGISTERED: &str = "waypost_client_registered";

/// How many services have their own metrics. Others share the label `other`, so that names from outside
/// can't fill the memory of a monitoring system.
const MAX_SERVICES: usize = 1_000;

/// The metrics of one service. All clients of a process share them.
///
/// The recorder must be installed before the service is first used, since the handles are kept.
#[derive(Clone)]
pub(crate) struct ServiceMetrics(Arc<Handles>);

struct Handles {
    service: String,
    picks: Counter,
    in_flight: Gauge,
    succeeded: ByOutcome,
    failed: ByOutcome,
    rejected: ByOutcome,
    abandoned: Counter,
}

struct ByOutcome {
    requests: Counter,
    duration: Histogram,
}

impl ByOutcome {
    fn new(service: &str, outcome: &'static str) -> Self {
        let service = || service.to_owned();
        Self {
            requests: counter!(REQUESTS, "service" => service(), "outcome" => outcome),
            duration: histogram!(DURATION, "service" => service(), "outcome" => outcome),
        }
    }
}

impl ServiceMetrics {
    pub(crate) fn of(service: &ServiceName) -> Self {
        static SERVICES: OnceLock<Mutex<HashMap<String, ServiceMetrics>>> = OnceLock::new();
        let services = SERVICES.get_or_init(Mutex::default);
        // Each entry is complete, so a poisoned lock can still be used.
        let mut services = services.lock().unwrap_or_else(PoisonError::into_inner);
        let name = if services.len() < MAX_SERVICES || services.contains_key(service.as_str()) {
            service.as_str()
        } else {
            "other"
        };
        let metrics = services.entry(name.to_owned());
        metrics.or_insert_with(|| Self::new(name)).clone()
    }

    fn new(service: &str) -> Self {
        describe();
        let label = || service.to_owned();
        Self(Arc::new(Handles {
            picks: counter!(PICKS, "service" => label()),
            in_flight: gauge!(IN_FLIGHT, "service" => label()),
            succeeded: ByOutcome::new(service, "succeeded"),
            failed: ByOutcome::new(service, "failed"),
            rejected: ByOutcome::new(service, "rejected"),
            abandoned: counter!(REQUESTS, "service" => label(), "outcome" => "abandoned"),
            service: label(),
        }))
    }

    fn service(&self) -> String {
        self.0.service.clone()
    }

    #[inline]
    pub(crate) fn picked(&self) {
        self.0.picks.increment(1);
    }

    pub(crate) fn pick_failed(&self, error: &Error) {
        let reason = reason(error);
        counter!(PICK_ERRORS, "service" => self.service(), "reason" => reason).increment(1);
    }

    #[inline]
    pub(crate) fn request_started(&self) {
        self.0.in_flight.increment(1.0);
    }

    #[inline]
    pub(crate) fn request_ended(&self, abandoned: bool) {
        self.0.in_flight.decrement(1.0);
        if abandoned {
            self.0.abandoned.increment(1);
        }
    }

    /// `latency` is `None` for a request that was not measured.
    #[inline]
    pub(crate) fn outcome(&self, outcome: Outcome, latency: impl FnOnce() -> Option<Duration>) {
        let by = match outcome {
            Outcome::Succeeded => &self.0.succeeded,
            Outcome::Failed => &self.0.failed,
            Outcome::Rejected { .. } => &self.0.rejected,
        };
        by.requests.increment(1);
        if let Some(latency) = latency() {
            by.duration.record(latency);
        }
    }

    #[cfg(any(feature = "reqwest", feature = "tower"))]
    pub(crate) fn retried(&self) {
        counter!(RETRIES, "service" => self.service()).increment(1);
    }

    #[cfg(any(feature = "reqwest", feature = "tower"))]
    pub(crate) fn hedged(&self) {
        counter!(HEDGES, "service" => self.service()).increment(1);
    }

    /// `cause` is one of a fixed set.
    pub(crate) fn ejected(&self, cause: &'static str) {
        counter!(EJECTIONS, "service" => self.service(), "cause" => cause).increment(1);
    }

    pub(crate) fn ejected_now(&self, count: usize) {
        gauge!(EJECTED, "service" => self.service()).set(count as f64);
    }

    pub(crate) fn watched(&self, state: impl FnOnce() -> ServiceState) {
        let state = state();
        gauge!(INSTANCES, "service" => self.service()).set(state.all as f64);
        gauge!(READY, "service" => self.service()).set(state.ready as f64);
        gauge!(STALE, "service" => self.service()).set(f64::from(u8::from(state.stale)));
        let Some(confirmed_at) = state.confirmed_at else {
            return;
        };
        let time = SystemTime::now().checked_sub(confirmed_at.elapsed());
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        if let Some(since) = since {
            gauge!(CONFIRMED, "service" => self.service()).set(since.as_secs_f64());
        }
    }

    pub(crate) fn watch_failed(&self, kind: ProviderErrorKind) {
        counter!(WATCH_FAILURES, "service" => self.service(), "reason" => watch_reason(kind))
            .increment(1);
    }

    pub(crate) fn registration_attempt(&self, succeeded: bool) {
        let result = if succeeded { "succeeded" } else { "failed" };
        counter!(REGISTRATIONS, "service" => self.service(), "result" => result).increment(1);
    }

    pub(crate) fn registered(&self, registered: bool) {
        gauge!(REGISTERED, "service" => self.service()).set(f64::from(u8::from(registered)));
    }
}

impl fmt::Debug for ServiceMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceMetrics")
            .field(&self.0.service)
            .finish()
    }
}

/// The value of the label `reason` of a failed attempt of a watch.
fn watch_reason(kind: ProviderErrorKind) -> &'static str {
    match kind {
        ProviderErrorKind::Unreachable => "unreachable",
        ProviderErrorKind::TimedOut { .. } => "timed_out",
        ProviderErrorKind::NotAuthorised => "not_authorised",
        ProviderErrorKind::InvalidResponse => "invalid_response",
        ProviderErrorKind::Unconfirmed => "unconfirmed",
        ProviderErrorKind::Rejected => "rejected",
        ProviderErrorKind::Unsupported => "unsupported",
        ProviderErrorKind::Misconfigured => "misconfigured",
        _ => "other",
    }
}

/// The value of the label `reason`, the same as in responses of the gateway where both have it.
fn reason(error: &Error) -> &'static str {
    match error {
        Error::UnknownService { .. } => "unknown_service",
        Error::NoInstances { .. } => "no_instances",
        Error::NoneHealthy { .. } => "none_healthy",
        Error::NoMatch { .. } => "no_match",
        Error::Stale { .. } => "registry_stale",
        Error::Unreachable { .. } => "registry_unreachable",
        Error::NotAuthorised { .. } => "registry_not_authorised",
        Error::TimedOut { .. } => "registry_timeout",
        _ => "other",
    }
}

fn describe() {
    describe_counter!(PICKS, Unit::Count, "Instances picked by the load balancer.");
    describe_counter!(
        PICK_ERRORS,
        Unit::Count,
        "Picks without a usable instance, by reason."
    );
    describe_counter!(
        REQUESTS,
        Unit::Count,
        "Requests that have ended, by outcome."
    );
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "Time from the lease to the outcome of a request. A thread with more than 16 requests per \
         millisecond measures one in 16."
    );
    describe_gauge!(IN_FLIGHT, Unit::Count, "Requests in flight.");
    describe_counter!(RETRIES, Unit::Count, "Attempts after a failed one.");
    describe_counter!(
        HEDGES,
        Unit::Count,
        "Attempts sent because another was slow."
    );
    describe_counter!(
        EJECTIONS,
        Unit::Count,
        "Ejections by outlier detection, by cause."
    );
    describe_gauge!(EJECTED, Unit::Count, "Instances that are ejected now.");
    describe_gauge!(INSTANCES, Unit::Count, "Instances in the registry.");
    describe_gauge!(
        READY,
        Unit::Count,
        "Instances that take new work, according to the registry."
    );
    describe_gauge!(
        STALE,
        Unit::Count,
        "1 while the registry fails and earlier answers are served."
    );
    describe_gauge!(
        CONFIRMED,
        Unit::Seconds,
        "Unix time at which the registry last confirmed the instances."
    );
    describe_counter!(
        WATCH_FAILURES,
        Unit::Count,
        "Failed attempts of watches, by reason."
    );
    describe_counter!(
        REGISTRATIONS,
        Unit::Count,
        "Registrations of this program, and failed attempts or heartbeats."
    );
    describe_gauge!(
        REGISTERED,
        Unit::Count,
        "1 while this program is registered."
    );
}

#[cfg(test)]
mod tests {
    use waypost_core::ProviderError;

    use super::*;

    #[test]
    fn each_kind_of_failure_has_a_reason() {
        let after = Duration::from_secs(1);
        for (kind, of_watch, of_pick) in [
            (
                ProviderErrorKind::Unreachable,
                "unreachable",
                "registry_unreachable",
            ),
            (
                ProviderErrorKind::TimedOut { after },
                "timed_out",
                "registry_timeout",
            ),
            (
                ProviderErrorKind::NotAuthorised,
                "not_authorised",
                "registry_not_authorised",
            ),
            (
                ProviderErrorKind::InvalidResponse,
                "invalid_response",
                "registry_unreachable",
            ),
            (
                ProviderErrorKind::Unconfirmed,
                "unconfirmed",
                "registry_unreachable",
            ),
            (ProviderErrorKind::Rejected, "rejected", "other"),
            (ProviderErrorKind::Unsupported, "unsupported", "other"),
            (ProviderErrorKind::Misconfigured, "misconfigured", "other"),
        ] {
            assert_eq!(watch_reason(kind), of_watch);
            let error = Error::from(ProviderError::new("a registry", kind, "failed"));
            assert_eq!(reason(&error), of_pick, "{error}");
        }
    }
}
