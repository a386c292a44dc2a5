use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::{CheckReport, DEFAULT_TIMEOUT};

/// What a check function may return: `bool`, `()`, or a `Result` whose error says what is wrong.
pub trait Outcome {
    /// `Err` says what is wrong.
    fn outcome(self) -> Result<(), String>;
}

impl Outcome for () {
    fn outcome(self) -> Result<(), String> {
        Ok(())
    }
}

impl Outcome for bool {
    fn outcome(self) -> Result<(), String> {
        match self {
            true => Ok(()),
            false => Err("the check returned false".into()),
        }
    }
}

impl<T: Outcome, E: fmt::Display> Outcome for Result<T, E> {
    fn outcome(self) -> Result<(), String> {
        match self {
            Ok(inner) => inner.outcome(),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// One named check of a service's health.
#[derive(Clone)]
pub struct CheckFunction {
    name: Arc<str>,
    function: Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    timeout: Duration,
    critical: bool,
}

impl CheckFunction {
    /// An asynchronous check. Critical, and with a timeout of [`DEFAULT_TIMEOUT`], unless told
    /// otherwise.
    pub fn new<F, T>(name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output: Outcome> + Send + 'static,
    {
        Self {
            name: name.into(),
            // The call itself may panic too, not only the future, so both happen in the task.
            function: {
                let function = Arc::new(function);
                Arc::new(move || {
                    let function = Arc::clone(&function);
                    async move { function().await.outcome() }.boxed()
                })
            },
            timeout: DEFAULT_TIMEOUT,
            critical: true,
        }
    }

    /// A check that blocks its thread. As long as a run hangs, further ones fail without another
    /// thread being lost to them.
    pub fn blocking<F, O>(name: impl Into<Arc<str>>, function: F) -> Self
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Outcome + Send + 'static,
    {
        let function = Arc::new(function);
        let running = Arc::new(AtomicBool::new(false));
        Self::new(name, move || {
            let function = Arc::clone(&function);
            let running = Arc::clone(&running);
            async move {
                if running.swap(true, Ordering::SeqCst) {
                    return Err("an earlier run of the check still hangs".to_owned());
                }
                let run = tokio::task::spawn_blocking(move || {
                    let _done = Done(running);
                    function().outcome()
                });
                run.await.unwrap_or_else(|error| Err(describe(error)))
            }
        })
    }

    /// After how long the check counts as failed.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A failure is worth a warning, but doesn't take the service out of use.
    #[must_use]
    pub fn advisory(mut self) -> Self {
        self.critical = false;
        self
    }

    /// Runs it. Whatever it does, this ends within the timeout and doesn't panic.
    pub(super) async fn run(&self) -> CheckReport {
        let started = Instant::now();
        // In a task of its own, so that a panic or a busy loop is the check's trouble only.
        let task = AbortOnDrop(tokio::spawn((self.function)()));
        let failure = match timeout(self.timeout, task).await {
            Ok(outcome) => outcome.err(),
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

/// Sets the flag back also when the check panics.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

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
