//! Decisions of load balancing: logged, counted and published to subscribers.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use waypost_core::{InstanceId, ServiceName};

use crate::telemetry::ServiceMetrics;

/// A decision of load balancing. Each is also written to the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BalanceEvent {
    /// An endpoint was ejected: it gets no requests for a while.
    Ejected {
        /// The endpoint.
        instance: InstanceId,
        /// Why it was ejected.
        cause: EjectionCause,
        /// For how long, in seconds; `None` means until its active checks pass.
        seconds: Option<f64>,
        /// Number of consecutive ejections.
        times: u32,
    },
    /// An endpoint was due for ejection, but is not ejected, since too many others are.
    EjectionOverflow {
        /// The endpoint.
        instance: InstanceId,
        /// Why it was due for ejection.
        cause: EjectionCause,
    },
    /// An ejected endpoint is used again: a trial request succeeded, or its active checks pass.
    Returned {
        /// The endpoint.
        instance: InstanceId,
    },
    /// Panic mode began: so few endpoints are healthy that ejections are ignored.
    PanicBegan {
        /// How many endpoints are healthy and not ejected.
        healthy: usize,
        /// How many endpoints there are.
        known: usize,
    },
    /// Panic mode ended: enough endpoints are healthy again.
    PanicEnded,
    /// A strategy panicked in [`prepare`](crate::balance::Strategy::prepare); the picker that it prepared
    /// before stays in use.
    PrepareFailed {
        /// The panic message.
        message: Arc<str>,
    },
}

/// Why an endpoint is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EjectionCause {
    /// Too many requests in a row failed.
    ConsecutiveFailures,
    /// Too large a share of its recent requests failed.
    SuccessRate,
    /// It requested a pause: 429, or 503 with `Retry-After`.
    Overloaded,
    /// The trial request after an ejection failed.
    ProbeFailed,
    /// Active checks from this process fail.
    ActiveCheck,
}

impl EjectionCause {
    /// The name used in logs, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SuccessRate => "success_rate",
            Self::Overloaded => "overloaded",
            Self::ProbeFailed => "probe_failed",
            Self::ActiveCheck => "active_check",
        }
    }
}

/// The number of decisions of each kind since the service was first looked up. The set of counters is
/// fixed, so a metric made from them has the same labels for ten instances and for ten thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BalanceCounters {
    /// Ejections for consecutive failures.
    pub ejected_consecutive_failures: u64,
    /// Ejections for a low success rate.
    pub ejected_success_rate: u64,
    /// Ejections for `Retry-After`.
    pub ejected_overloaded: u64,
    /// Ejections after a failed trial request.
    pub ejected_probe_failed: u64,
    /// Ejections for failed active checks.
    pub ejected_active_check: u64,
    /// Ejections that were prevented because too many endpoints were ejected already, as Envoy counts them.
    pub ejections_overflow: u64,
    /// Endpoints that were readmitted after an ejection.
    pub returned: u64,
    /// How many times panic mode began.
    pub panics: u64,
    /// How many times a strategy panicked in `prepare`.
    pub prepare_failed: u64,
    /// Active checks that passed.
    pub checks_passed: u64,
    /// Active checks that failed.
    pub checks_failed: u64,
    /// How many endpoints are ejected now.
    pub ejected_now: u64,
}

impl BalanceCounters {
    fn count(&mut self, event: &BalanceEvent) {
        *match event {
            BalanceEvent::Ejected { cause, .. } => match cause {
                EjectionCause::ConsecutiveFailures => &mut self.ejected_consecutive_failures,
                EjectionCause::SuccessRate => &mut self.ejected_success_rate,
                EjectionCause::Overloaded => &mut self.ejected_overloaded,
                EjectionCause::ProbeFailed => &mut self.ejected_probe_failed,
                EjectionCause::ActiveCheck => &mut self.ejected_active_check,
            },
            BalanceEvent::EjectionOverflow { .. } => &mut self.ejections_overflow,
            BalanceEvent::Returned { .. } => &mut self.returned,
            BalanceEvent::PanicBegan { .. } => &mut self.panics,
            BalanceEvent::PanicEnded => return,
            BalanceEvent::PrepareFailed { .. } => &mut self.prepare_failed,
        } += 1;
    }
}

/// A subscription to the decisions from now on; see [`Balancer::events`](crate::Balancer::events).
#[derive(Debug)]
pub struct BalanceEvents(broadcast::Receiver<BalanceEvent>);

impl BalanceEvents {
    /// The next event. A subscriber that falls more than 256 events behind misses the oldest ones.
    /// `None` when the service is no longer watched.
    pub async fn next(&mut self) -> Option<BalanceEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

/// Logs, counts and publishes the decisions about one service.
#[derive(Debug)]
pub(crate) struct EventSink {
    service: ServiceName,
    metrics: ServiceMetrics,
    counters: Mutex<BalanceCounters>,
    /// Created by the first subscriber.
    sender: OnceLock<broadcast::Sender<BalanceEvent>>,
    panicking: AtomicBool,
}

impl EventSink {
    pub(super) fn new(service: ServiceName) -> Self {
        Self {
            metrics: ServiceMetrics::of(&service),
            service,
            counters: Mutex::default(),
            sender: OnceLock::new(),
            panicking: AtomicBool::new(false),
        }
    }

    pub(crate) fn subscribe(&self) -> BalanceEvents {
        let sender = self.sender.get_or_init(|| broadcast::Sender::new(256));
        BalanceEvents(sender.subscribe())
    }

    pub(crate) fn counters(&self) -> BalanceCounters {
        *self.lock()
    }

    pub(crate) fn emit(&self, event: BalanceEvent) {
        self.lock().count(&event);
        if let BalanceEvent::Ejected { cause, .. } = &event {
            self.metrics.ejected(cause.as_str());
        }
        log(&event, self.service.as_str());
        if let Some(sender) = self.sender.get() {
            // An error only means that there is no subscriber.
            let _ = sender.send(event);
        }
    }

    /// Emits an event if panic mode begins or ends.
    pub(crate) fn set_panicking(&self, panicking: bool, healthy: usize, known: usize) {
        if self.panicking.swap(panicking, Relaxed) != panicking {
            self.emit(if panicking {
                BalanceEvent::PanicBegan { healthy, known }
            } else {
                BalanceEvent::PanicEnded
            });
        }
    }

    /// Publishes how many endpoints are ejected now.
    pub(super) fn set_ejected(&self, count: usize) {
        self.metrics.ejected_now(count);
    }

    pub(super) fn count_check(&self, passed: bool) {
        let mut counters = self.lock();
        if passed {
            counters.checks_passed += 1;
        } else {
            counters.checks_failed += 1;
        }
    }

    /// Counters are valid after any panic, so a poisoned lock can still be used.
    fn lock(&self) -> MutexGuard<'_, BalanceCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(event: &BalanceEvent, service: &str) {
    match event {
        BalanceEvent::Ejected {
            instance,
            cause,
            seconds,
            times,
        } => {
            let cause = cause.as_str();
            let duration = match seconds {
                Some(seconds) => {
                    let pause = Duration::from_secs(seconds.round() as u64);
                    format!("for {}", humantime::format_duration(pause))
                }
                None => "until its checks pass".to_owned(),
            };
            tracing::warn!(service, %instance, cause, times, "endpoint ejected {duration}");
        }
        BalanceEvent::EjectionOverflow { instance, cause } => {
            let cause = cause.as_str();
            tracing::warn!(
                service, %instance, cause,
                "endpoint not ejected: too many others are already ejected"
            );
        }
        BalanceEvent::Returned { instance } => {
            tracing::info!(service, %instance, "endpoint no longer ejected");
        }
        BalanceEvent::PanicBegan { healthy, known } => {
            tracing::warn!(
                service,
                healthy,
                known,
                "too few healthy endpoints, ignoring ejections"
            );
        }
        BalanceEvent::PanicEnded => tracing::info!(service, "enough healthy endpoints again"),
        BalanceEvent::PrepareFailed { message } => {
            tracing::error!(service, %message, "strategy panicked, keeping the previous picker");
        }
    }
}
