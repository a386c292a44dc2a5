use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

/// How a service or one of its checks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Passing,
    /// Something is wrong that keeps nobody from being served.
    Warning,
    /// It can't serve.
    Critical,
}

/// What the checks of a service say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HealthReport {
    service: Arc<str>,
    status: Status,
    ready: bool,
    checks: Vec<CheckReport>,
}

impl HealthReport {
    pub(super) fn new(service: &Arc<str>, ready: bool, checks: Vec<CheckReport>) -> Self {
        let worst = checks.iter().map(|check| check.status).max();
        Self {
            service: Arc::clone(service),
            status: worst.unwrap_or(Status::Passing),
            ready,
            checks,
        }
    }

    /// The worst that a check says.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether requests should come here: no critical check fails and the service wants traffic.
    pub fn is_serving(&self) -> bool {
        self.ready && self.status != Status::Critical
    }

    /// Check by check, in the order in which they were added.
    pub fn checks(&self) -> &[CheckReport] {
        &self.checks
    }

    /// What is wrong, in one line.
    pub fn summary(&self) -> String {
        let failures: Vec<_> = self
            .checks
            .iter()
            .filter_map(|check| Some(format!("{}: {}", check.name, check.error.as_deref()?)))
            .collect();
        match (failures.is_empty(), self.ready) {
            (true, true) => format!("{} checks pass", self.checks.len()),
            (true, false) => "the service is on its way out".into(),
            (false, _) => failures.join("; "),
        }
    }
}

/// What one check says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    name: Arc<str>,
    status: Status,
    critical: bool,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl CheckReport {
    pub(super) fn new(
        name: &Arc<str>,
        critical: bool,
        took: Duration,
        failure: Option<String>,
    ) -> Self {
        let status = match (&failure, critical) {
            (None, _) => Status::Passing,
            (Some(_), true) => Status::Critical,
            (Some(_), false) => Status::Warning,
        };
        Self {
            name: Arc::clone(name),
            status,
            critical,
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
            error: failure,
        }
    }

    /// The check's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it went.
    pub fn status(&self) -> Status {
        self.status
    }

    /// What is wrong, if something is.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;

    async fn fails() -> Result<(), String> {
        Err("refused".into())
    }

    async fn hangs() {
        std::future::pending::<()>().await;
    }

    async fn panics() {
        panic!("oh no");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_fails_hangs_or_panics_is_a_failed_check() {
        let health = HealthChecks::new("s")
            .check("good", || async { true })
            .check("fails", fails)
            .check("false", || async { false })
            .check("hangs", hangs)
            .check("panics", panics)
            .check("panics when called", || -> std::future::Ready<()> {
                panic!("early")
            });
        let report = health.report().await;
        assert_eq!(report.status(), Status::Critical);
        assert!(!report.is_serving());
        let errors: Vec<_> = report
            .checks()
            .iter()
            .map(|c| c.error().unwrap_or(""))
            .collect();
        assert_eq!(
            errors,
            [
                "",
                "refused",
                "the check returned false",
                "no result within 900ms",
                "the check panicked: oh no",
                "the check panicked: early",
            ]
        );
    }

    #[tokio::test]
    async fn a_blocking_check_that_hangs_costs_one_thread_only() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let health = HealthChecks::new("s").with(
            CheckFunction::blocking("disk", move || held.lock().unwrap().recv().is_ok())
                .timeout(Duration::from_millis(20)),
        );
        let first = health.report().await;
        assert_eq!(first.checks()[0].error(), Some("no result within 20ms"));
        let second = health.report().await;
        assert_eq!(
            second.checks()[0].error(),
            Some("an earlier run of the check still hangs")
        );
        drop(release);
    }

    #[tokio::test]
    async fn one_on_its_way_out_does_not_serve() {
        let health = HealthChecks::new("s").check("good", || async {});
        assert!(health.report().await.is_serving());
        health.clone().set_ready(false);
        let report = health.report().await;
        assert!(!report.is_serving());
        assert_eq!(report.status(), Status::Passing);
    }
}
