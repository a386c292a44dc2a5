//! The results of a service's health checks.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// The status of a check, or of a service as a whole; ordered from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// No problem.
    Passing,
    /// A problem that doesn't keep the service from serving: an advisory check fails.
    Warning,
    /// The service can't serve: a critical check fails.
    Critical,
}

/// The results of all checks of a service.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HealthReport {
    service: Arc<str>,
    status: CheckStatus,
    ready: bool,
    checks: Vec<CheckReport>,
}

impl HealthReport {
    pub(super) fn new(service: &Arc<str>, ready: bool, checks: Vec<CheckReport>) -> Self {
        let worst = checks.iter().map(|check| check.status).max();
        Self {
            service: Arc::clone(service),
            status: worst.unwrap_or(CheckStatus::Passing),
            ready,
            checks,
        }
    }

    /// The worst status of any check; passing if there are none.
    pub fn status(&self) -> CheckStatus {
        self.status
    }

    /// Whether the service should get requests: it is ready, and no critical check fails.
    pub fn is_serving(&self) -> bool {
        self.ready && self.status != CheckStatus::Critical
    }

    /// The results by check, in the order in which the checks were added.
    pub fn checks(&self) -> &[CheckReport] {
        &self.checks
    }

    /// One line with the failures, or with the number of checks if all pass.
    pub fn summary(&self) -> String {
        let failures: Vec<_> = self
            .checks
            .iter()
            .filter_map(|check| Some(format!("{}: {}", check.name, check.error.as_deref()?)))
            .collect();
        if !failures.is_empty() {
            failures.join("; ")
        } else if !self.ready {
            "the service is not ready".into()
        } else if self.checks.len() == 1 {
            "1 check passes".into()
        } else {
            format!("{} checks pass", self.checks.len())
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    name: Arc<str>,
    status: CheckStatus,
    critical: bool,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl CheckReport {
    pub(super) fn new(
        name: &Arc<str>,
        critical: bool,
        duration: Duration,
        failure: Option<String>,
    ) -> Self {
        let status = match (&failure, critical) {
            (None, _) => CheckStatus::Passing,
            (Some(_), true) => CheckStatus::Critical,
            (Some(_), false) => CheckStatus::Warning,
        };
        Self {
            name: Arc::clone(name),
            status,
            critical,
            duration_ms: (duration.as_secs_f64() * 1e6).round() / 1e3,
            error: failure,
        }
    }

    /// The check's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The check's status.
    pub fn status(&self) -> CheckStatus {
        self.status
    }

    /// What is wrong, if the check failed.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}
