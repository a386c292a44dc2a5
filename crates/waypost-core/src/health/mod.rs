//! Health made of check functions.
//!
//! A service's health is what its [check functions](CheckFunction) say: the database answers, the
//! cache does, the disk has room. [`HealthChecks::report`] runs them all at once and gives a
//! [`HealthReport`]; the integrations serve it at `/health`, `/livez` and `/readyz`.

mod check;
mod report;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

pub use check::{CheckFunction, Outcome};
pub use report::{CheckReport, HealthReport, Status};

/// The health of one service: its check functions, and whether it is ready for traffic.
///
/// Clones share the same state.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use waypost_core::health::{CheckFunction, HealthChecks, Status};
///
/// async fn check_database() -> bool { true }
/// async fn check_cache() -> Result<(), String> { Err("connection refused".into()) }
///
/// let health = HealthChecks::new("my-service")
///     .check("database", check_database)
///     .with(CheckFunction::new("cache", check_cache).advisory());
/// let report = health.report().await;
/// assert_eq!(report.status(), Status::Warning);      // an advisory check fails
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
    /// No checks yet; ready.
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
        T: Future<Output: Outcome> + Send + 'static,
    {
        self.with(CheckFunction::new(name, function))
    }

    /// Adds a critical check that blocks its thread, with the default timeout.
    #[must_use]
    pub fn check_blocking<F, O>(self, name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Outcome + Send + 'static,
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

    /// Says whether the service wants traffic. A service on its way out doesn't, however healthy
    /// it is.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::SeqCst);
    }

    /// Whether the service wants traffic.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Runs all checks at once. It takes as long as the slowest, at most its timeout.
    pub async fn report(&self) -> HealthReport {
        let checks = join_all(self.checks.iter().map(CheckFunction::run)).await;
        HealthReport::new(&self.service, self.is_ready(), checks)
    }
}

/// How long a check may take unless it is told otherwise. Shorter than the timeouts of those who
/// ask: a Kubernetes probe's default is 1 s, a Consul check's 10 s.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(900);
