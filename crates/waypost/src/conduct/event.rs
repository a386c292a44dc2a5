use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use waypost_core::InstanceId;

/// A decision of load balancing that an operator may ask about. Each is also a line of the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum BalanceEvent {
    /// An endpoint gets no requests for a while.
    Ejected {
        /// Which.
        instance: InstanceId,
        /// Why.
        cause: EjectionCause,
        /// For how long, in seconds; `None` if until its checks pass.
        seconds: Option<f64>,
        /// The how manieth time in close succession.
        times: u32,
    },
    /// It would have been ejected, but too many are already.
    Spared {
        /// Which.
        instance: InstanceId,
        /// What it was to be ejected for.
        cause: EjectionCause,
    },
    /// A request to an ejected endpoint, sent to see whether it is well again, succeeded; or checks
    /// of it pass again.
    Returned {
        /// Which.
        instance: InstanceId,
    },
    /// So few endpoints are healthy that ejections are disregarded.
    PanicBegan {
        /// How many are healthy and not ejected.
        healthy: usize,
        /// How many are known.
        known: usize,
    },
    /// Enough endpoints are healthy again.
    PanicEnded,
    /// A strategy panicked while it prepared itself; what was prepared before stays in use.
    PrepareFailed {
        /// What it said.
        message: Arc<str>,
    },
}

/// What an endpoint is ejected for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EjectionCause {
    /// It failed too many times in a row.
    ConsecutiveFailures,
    /// It failed too often among its recent requests.
    SuccessRate,
    /// It asked for a pause: 429 or 503 with `Retry-After`.
    Overloaded,
    /// The request that was to show whether it is well again failed.
    ProbeFailed,
    /// Checks from this process fail.
    ActiveCheck,
}

impl EjectionCause {
    /// Its name in logs, metrics and reports.
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

/// How often each thing happened since the service was first asked for. The set of counters is
/// fixed, so that a metric made of them has as many labels with ten instances as with ten thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BalanceCounters {
    /// Ejections for failures in a row.
    pub ejected_consecutive_failures: u64,
    /// Ejections for a low success rate.
    pub ejected_success_rate: u64,
    /// Ejections for `Retry-After`.
    pub ejected_overloaded: u64,
    /// Ejections after a failed probe.
    pub ejected_probe_failed: u64,
    /// Ejections for failed checks from this process.
    pub ejected_active_check: u64,
    /// Ejections that didn't happen since too many were ejected.
    pub spared: u64,
    /// Returns to use.
    pub returned: u64,
    /// How often panic mode began.
    pub panics: u64,
    /// How often a strategy failed to prepare.
    pub prepare_failed: u64,
    /// Checks from this process that passed.
    pub checks_passed: u64,
    /// Checks from this process that failed.
    pub checks_failed: u64,
    /// How many endpoints are ejected now.
    pub ejected_now: u64,
}

impl BalanceCounters {
    pub(crate) fn count(&mut self, event: &BalanceEvent) {
        *match event {
            BalanceEvent::Ejected { cause, .. } => match cause {
                EjectionCause::ConsecutiveFailures => &mut self.ejected_consecutive_failures,
                EjectionCause::SuccessRate => &mut self.ejected_success_rate,
                EjectionCause::Overloaded => &mut self.ejected_overloaded,
                EjectionCause::ProbeFailed => &mut self.ejected_probe_failed,
                EjectionCause::ActiveCheck => &mut self.ejected_active_check,
            },
            BalanceEvent::Spared { .. } => &mut self.spared,
            BalanceEvent::Returned { .. } => &mut self.returned,
            BalanceEvent::PanicBegan { .. } => &mut self.panics,
            BalanceEvent::PanicEnded => return,
            BalanceEvent::PrepareFailed { .. } => &mut self.prepare_failed,
        } += 1;
    }
}

impl BalanceEvent {
    pub(crate) fn log(&self, service: &str) {
        match self {
            Self::Ejected {
                instance,
                cause,
                seconds,
                times,
            } => {
                let cause = cause.as_str();
                let pause = match seconds {
                    Some(seconds) => {
                        let pause = Duration::from_secs(seconds.round() as u64);
                        format!("for {}", humantime::format_duration(pause))
                    }
                    None => "until its checks pass".to_owned(),
                };
                tracing::warn!(service, %instance, cause, times, "endpoint ejected {pause}");
            }
            Self::Spared { instance, cause } => {
                let cause = cause.as_str();
                tracing::warn!(service, %instance, cause, "endpoint stays: too many are ejected");
            }
            Self::Returned { instance } => {
                tracing::info!(service, %instance, "endpoint is used again");
            }
            Self::PanicBegan { healthy, known } => {
                tracing::warn!(
                    service,
                    healthy,
                    known,
                    "too few healthy endpoints; using all"
                );
            }
            Self::PanicEnded => tracing::info!(service, "enough endpoints are healthy again"),
            Self::PrepareFailed { message } => {
                tracing::error!(service, %message, "strategy panicked; keeping the last table");
            }
        }
    }
}

/// The decisions from now on; see [`Balancer::events`](crate::Balancer::events).
#[derive(Debug)]
pub struct BalanceEvents(pub(crate) tokio::sync::broadcast::Receiver<BalanceEvent>);

impl BalanceEvents {
    /// The next one. One who falls more than 256 behind misses the oldest. `None` when the service
    /// is no longer followed.
    pub async fn next(&mut self) -> Option<BalanceEvent> {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
