//! One health check: a named function with a timeout.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::report::CheckReport;

/// The default timeout of a check, 900 ms. It is shorter than the timeouts of the callers of health
/// endpoints: 1 s for a Kubernetes probe, 10 s for a Consul check.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(900);

/// What a check function may return: `bool`, `()`, or a `Result` whose error says what is wrong.
pub trait IntoCheckResult {
    /// Converts the value.
    ///
    /// # Errors
    /// If the check failed; the error says what is wrong.
    fn into_check_result(self) -> Result<(), String>;
}

impl IntoCheckResult for () {
    fn into_check_result(self) -> Result<(), String> {
        Ok(())
    }
}

impl IntoCheckResult for bool {
    fn into_check_result(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("the check returned false".into())
        }
    }
}

impl<T: IntoCheckResult, E: fmt::Display> IntoCheckResult for Result<T, E> {
    fn into_check_result(self) -> Result<(), String> {
        match self {
            Ok(inner) => inner.into_check_result(),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// One named health check of a service.
#[derive(Clone)]
pub struct CheckFunction {
    name: Arc<str>,
    function: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    timeout: Duration,
    critical: bool,
}

impl CheckFunction {
    /// An asynchronous check. By default it is critical and has a timeout of [`DEFAULT_TIMEOUT`].
    pub fn new<F, T>(name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output: IntoCheckResult> + Send + 'static,
    {
        Self {
            name: name.into(),
            // The call that creates the future may panic as well, so it also runs in the task.
            function: {
                let function = Arc::new(function);
                Arc::new(move || {
                    let function = Arc::clone(&function);
                    async move { function().await.into_check_result() }.boxed()
                })
            },
            timeout: DEFAULT_TIMEOUT,
            critical: true,
        }
    }

    /// A check that blocks its thread. While one run hangs, further runs fail at once, so that the
    /// check never occupies more than one thread.
    pub fn blocking<F, O>(name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: IntoCheckResult + Send + 'static,
    {
        let function = Arc::new(function);
        let running = Arc::new(AtomicBool::new(false));
        Self::new(name, move || {
            let function = Arc::clone(&function);
            let running = Arc::clone(&running);
            async move {
                if running.swap(true, Ordering::SeqCst) {
                    return Err("an earlier run of the check is still in progress".to_owned());
                }
                let run = tokio::task::spawn_blocking(move || {
                    let _reset = ResetOnDrop(running);
                    function().into_check_result()
                });
                run.await.unwrap_or_else(|error| Err(describe(error)))
            }
        })
    }

    /// Sets the time after which the check counts as failed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the check advisory: its failure is a warning, and the service keeps serving.
    #[must_use]
    pub fn advisory(mut self) -> Self {
        self.critical = false;
        self
    }

    /// Runs the check. This ends within the timeout and doesn't panic, whatever the check does.
    pub(super) async fn run(&self) -> CheckReport {
        let started = Instant::now();
        // In a separate task, so that a panic or a busy loop affects only the check.
        let task = AbortOnDrop(tokio::spawn((self.function)()));
        let failure = match timeout(self.timeout, task).await {
            Ok(result) => result.err(),
            Err(_) => Some(format!(
                "no result within {}",
                humantime::format_duration(self.timeout)
            )),
        };
        CheckReport::new(&self.name, self.critical, started.elapsed(), failure)
    }
}

impl fmt::Debug for CheckFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckFunction")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("critical", &self.critical)
            .finish_non_exhaustive()
    }
}

/// Clears the flag when the run ends, even by a panic.
struct ResetOnDrop(Arc<AtomicBool>);

impl Drop for ResetOnDrop {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// A task that is aborted when its result is no longer awaited.
struct AbortOnDrop(JoinHandle<Result<(), String>>);

impl Future for AbortOnDrop {
    type Output = Result<(), String>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        self.0
            .poll_unpin(cx)
            .map(|joined| joined.unwrap_or_else(|error| Err(describe(error))))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a task ended without a result.
fn describe(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            format!("the check panicked: {}", text.unwrap_or_default())
        }
        Err(_) => "the check was cancelled".into(),
    }
}
