//! An application's own health checks, and the report on them.
//!
//! [`HealthChecks`] holds the [check functions](CheckFunction) of a service, such as "the database
//! answers". [`HealthChecks::report`] runs them all concurrently and returns a [`HealthReport`]; the
//! integrations serve it at `/health`, `/livez` and `/readyz`.

mod check;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;

pub use check::{CheckFunction, DEFAULT_TIMEOUT, IntoCheckResult};
pub use report::{CheckReport, CheckStatus, HealthReport};

/// The health checks of one service, and whether it is ready for traffic.
///
/// Clones share their state.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use waypost_core::health::{CheckFunction, CheckStatus, HealthChecks};
///
/// async fn check_database() -> bool { true }
/// async fn check_cache() -> Result<(), String> { Err("connection refused".into()) }
///
/// let health = HealthChecks::new("my-service")
///     .check("database", check_database)
///     .with(CheckFunction::new("cache", check_cache).advisory());
/// let report = health.report().await;
/// assert_eq!(report.status(), CheckStatus::Warning);      // an advisory check fails
/// assert!(report.is_serving());
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct HealthChecks {
    service: Arc<str>,
    checks: Arc<Vec<CheckFunction>>,
    ready: Arc<AtomicBool>,
}

impl HealthChecks {
    /// A service without checks, ready for traffic.
    pub fn new(service: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            checks: Arc::default(),
            ready: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Adds a critical check with the default timeout.
    #[must_use]
    pub fn check<F, T>(self, name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output: IntoCheckResult> + Send + 'static,
    {
        self.with(CheckFunction::new(name, function))
    }

    /// Adds a critical check that blocks its thread, with the default timeout.
    #[must_use]
    pub fn check_blocking<F, O>(self, name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: IntoCheckResult + Send + 'static,
    {
        self.with(CheckFunction::blocking(name, function))
    }

    /// Adds a check.
    #[must_use]
    pub fn with(mut self, check: CheckFunction) -> Self {
        Arc::make_mut(&mut self.checks).push(check);
        self
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Sets whether the service is ready for traffic. A service that is shutting down isn't, even if
    /// all its checks pass.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }

    /// Whether the service is ready for traffic.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Runs all checks concurrently. This takes as long as the slowest check, at most its timeout.
    pub async fn report(&self) -> HealthReport {
        let checks = join_all(self.checks.iter().map(CheckFunction::run)).await;
        HealthReport::new(&self.service, self.is_ready(), checks)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

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
    async fn a_check_that_returns_an_error_hangs_or_panics_is_a_failed_check() {
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
        assert_eq!(report.status(), CheckStatus::Critical);
        assert!(!report.is_serving());
        let results: Vec<_> = report
            .checks()
            .iter()
            .map(|check| (check.name(), check.error().unwrap_or("")))
            .collect();
        assert_eq!(
            results,
            [
                ("good", ""),
                ("fails", "refused"),
                ("false", "the check returned false"),
                ("hangs", "no result within 900ms"),
                ("panics", "the check panicked: oh no"),
                ("panics when called", "the check panicked: early"),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_takes_too_long_is_aborted() {
        let health = HealthChecks::new("s").check("hangs", hangs);
        let report = health.report().await;
        assert_eq!(report.summary(), "hangs: no result within 900ms");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let metrics = tokio::runtime::Handle::current().metrics();
        assert_eq!(metrics.num_alive_tasks(), 0);
    }

    #[tokio::test]
    async fn a_blocking_check_that_hangs_occupies_one_thread_only() {
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
            Some("an earlier run of the check is still in progress")
        );
        drop(release);
    }

    #[tokio::test]
    async fn a_blocking_check_runs_again_after_each_run_even_after_a_panic() {
        let runs = AtomicUsize::new(0);
        let check = CheckFunction::blocking("disk", move || {
            assert_ne!(runs.fetch_add(1, Ordering::SeqCst), 1, "no disk");
        });
        let health = HealthChecks::new("s").with(check.timeout(Duration::from_secs(60)));
        for failed in [false, true, false] {
            let report = health.report().await;
            let error = report.checks()[0].error();
            assert_eq!(error.is_some_and(|it| it.contains("no disk")), failed);
            assert_eq!(error.is_some(), failed, "{error:?}");
        }
    }

    #[tokio::test]
    async fn a_service_that_is_not_ready_is_not_serving() {
        let health = HealthChecks::new("s").check("good", || async {});
        let report = health.report().await;
        assert!(report.is_serving());
        assert_eq!(report.summary(), "1 check passes");
        health.clone().set_ready(false);
        let report = health.report().await;
        assert!(!report.is_serving());
        assert_eq!(report.status(), CheckStatus::Passing);
        assert_eq!(report.summary(), "the service is not ready");
        for (report, summary) in [
            (HealthChecks::new("s").report().await, "0 checks pass"),
            (
                health.check("other", || async {}).report().await,
                "the service is not ready",
            ),
        ] {
            assert_eq!(report.summary(), summary);
        }
    }
}
