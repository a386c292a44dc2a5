//! Keeps the watches of a provider running.
//!
//! A provider reports failures and ends its stream; when to try again is decided here, for all
//! providers alike. A panic in a provider counts as a failed attempt.
//!
//! When a registry fails, hundreds of watches fail at the same time. Each has its own backoff, up to
//! 30 s, so that they don't keep the registry down. Together they notice within seconds that it is
//! available again, and they produce one log line, not hundreds.

mod backoff;
mod outage_log;
mod recovery;
mod status;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::time::{Instant, sleep_until};

use self::outage_log::{FailureScope, OutageLog};
use self::recovery::Recovery;
use crate::error::ProviderError;

pub use backoff::Backoff;
pub use status::ProviderStatus;

/// Restarts the watches of one provider when they end, and tracks its status.
///
/// ```
/// use futures_util::{StreamExt, stream};
/// use waypost_core::{ProviderError, supervision::WatchSupervisor};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let supervisor = WatchSupervisor::new("example".into());
/// // A watch that answers once and then ends: it is restarted after a pause.
/// let mut watch = supervisor.supervise("numbers", || {
///     stream::iter([Ok::<_, ProviderError>(1)]).boxed()
/// });
/// assert_eq!(watch.next().await.unwrap().unwrap(), 1);
/// assert_eq!(watch.next().await.unwrap().unwrap(), 1);
/// assert_eq!(supervisor.status().reconnects(), 1);
/// # }
/// ```
#[derive(Debug)]
pub struct WatchSupervisor {
    provider: Arc<str>,
    recovery: Recovery,
    outages: OutageLog,
}

impl WatchSupervisor {
    /// A supervisor for the provider with this description.
    pub fn new(provider: Arc<str>) -> Arc<Self> {
        Self::with_log(provider, true)
    }

    /// A supervisor that logs nothing, for a provider whose layers have supervisors of their own.
    pub fn silent(provider: Arc<str>) -> Arc<Self> {
        Self::with_log(provider, false)
    }

    fn with_log(provider: Arc<str>, enabled: bool) -> Arc<Self> {
        Arc::new(Self {
            recovery: Recovery::default(),
            outages: OutageLog::new(Arc::clone(&provider), enabled),
            provider,
        })
    }

    /// The failure of an attempt that has panicked.
    fn panicked(&self, panic: &(dyn Any + Send)) -> ProviderError {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let message = format!("the provider panicked: {}", text.unwrap_or("no message"));
        ProviderError::unreachable(Arc::clone(&self.provider), message)
    }

    /// The state of the provider over all supervised watches.
    pub fn status(&self) -> ProviderStatus {
        self.outages.status()
    }

    /// A watch that never ends: when the stream from `subscribe` ends, `subscribe` is called again
    /// after a pause. `subject` names what is watched, in log lines.
    ///
    /// The pause is a random time below a limit, which doubles with each failed attempt from 200 ms
    /// to 30 s. An answer resets the limit, but attempts still start at least 1 s apart. A panic in
    /// `subscribe` or in its stream is a failed attempt.
    pub fn supervise<T: Send + 'static>(
        self: &Arc<Self>,
        subject: impl Into<Arc<str>>,
        subscribe: impl FnMut() -> BoxStream<'static, Result<T, ProviderError>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, ProviderError>> {
        let watch = RestartingWatch {
            state: WatchState::new(self, subject.into()),
            subscribe,
            attempt: None,
            backoff: Backoff::default(),
        };
        stream::unfold(watch, |mut watch| async move {
            let item = watch.next().await;
            Some((item, watch))
        })
        .boxed()
    }
}

/// One watch, restarted whenever it ends.
struct RestartingWatch<T, S> {
    state: WatchState,
    subscribe: S,
    attempt: Option<Attempt<T>>,
    backoff: Backoff,
}

/// A running stream of the provider.
struct Attempt<T> {
    stream: BoxStream<'static, Result<T, ProviderError>>,
    started: Instant,
    has_answered: bool,
}

impl<T, S> RestartingWatch<T, S>
where
    T: Send + 'static,
    S: FnMut() -> BoxStream<'static, Result<T, ProviderError>>,
{
    /// The minimum time between the starts of two attempts, if the first has answered. Without it, a
    /// provider whose stream ends after each answer would be called many times per second.
    const MIN_INTERVAL: Duration = Duration::from_secs(1);

    async fn next(&mut self) -> Result<T, ProviderError> {
        loop {
            let item = match AssertUnwindSafe(self.poll_attempt()).catch_unwind().await {
                Ok(item) => item,
                Err(panic) => {
                    // A stream that has panicked must not be polled again.
                    if let Some(attempt) = &mut self.attempt {
                        attempt.stream = stream::empty().boxed();
                    }
                    Some(Err(self.state.supervisor.panicked(&*panic)))
                }
            };
            if let Some(item) = item {
                self.state.record(&item);
                if item.is_ok() {
                    self.backoff.reset();
                }
                return item;
            }
            // Polling an ended stream may panic, so it is dropped before the pause.
            let ended = self.attempt.take();
            let step = self.backoff.next_delay();
            self.state.pause(step).await;
            if let Some(ended) = ended.filter(|attempt| attempt.has_answered) {
                sleep_until(ended.started + Self::MIN_INTERVAL).await;
            }
        }
    }

    /// The next item of the running attempt; starts one if there is none.
    async fn poll_attempt(&mut self) -> Option<Result<T, ProviderError>> {
        let attempt = match &mut self.attempt {
            Some(attempt) => attempt,
            None => {
                // In place before `subscribe` is called, in case that panics.
                let attempt = self.attempt.insert(Attempt {
                    stream: stream::empty().boxed(),
                    started: Instant::now(),
                    has_answered: false,
                });
                attempt.stream = (self.subscribe)();
                attempt
            }
        };
        let item = attempt.stream.next().await;
        attempt.has_answered |= matches!(item, Some(Ok(_)));
        item
    }
}

/// The state of one watch, as reported to its supervisor.
struct WatchState {
    supervisor: Arc<WatchSupervisor>,
    subject: Arc<str>,
    failing: Option<FailureScope>,
}

impl WatchState {
    fn new(supervisor: &Arc<WatchSupervisor>, subject: Arc<str>) -> Self {
        supervisor.outages.watch_started();
        Self {
            supervisor: Arc::clone(supervisor),
            subject,
            failing: None,
        }
    }

    fn record<T>(&mut self, item: &Result<T, ProviderError>) {
        let before = self.failing;
        let supervisor = &self.supervisor;
        match item {
            Ok(_) => {
                self.failing = None;
                supervisor.outages.succeeded(before);
                if before == Some(FailureScope::Outage) {
                    supervisor.recovery.recovered();
                }
            }
            Err(error) => {
                self.failing = Some(FailureScope::of(error));
                supervisor.outages.failed(&self.subject, before, error);
            }
        }
    }

    async fn pause(&self, step: Duration) {
        match self.failing {
            // The success of other watches says nothing about a request that is refused.
            Some(FailureScope::Refusal) => tokio::time::sleep(step).await,
            _ => self.supervisor.recovery.pause(step).await,
        }
        self.supervisor.outages.reconnecting();
    }
}

impl Drop for WatchState {
    fn drop(&mut self) {
        self.supervisor.outages.watch_dropped(self.failing);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    /// A provider whose watches fail at once while it is down.
    #[derive(Clone, Default)]
    struct Fake {
        up: Arc<AtomicBool>,
        attempts: Arc<AtomicUsize>,
    }

    impl Fake {
        fn watch(&self) -> BoxStream<'static, Result<(), ProviderError>> {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            if self.up.load(Ordering::SeqCst) {
                stream::iter([Ok(())]).chain(stream::pending()).boxed()
            } else {
                stream::iter([Err(ProviderError::unreachable("fake", "no"))]).boxed()
            }
        }

        /// Starts `watches` watches, each until its first success, and returns the times of success.
        fn follow(
            &self,
            supervisor: &Arc<WatchSupervisor>,
            watches: usize,
        ) -> tokio::task::JoinSet<Instant> {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..watches {
                let fake = self.clone();
                let mut watch = supervisor.supervise(format!("s{number}"), move || fake.watch());
                tasks.spawn(async move {
                    while watch.next().await.is_none_or(|item| item.is_err()) {}
                    Instant::now()
                });
            }
            tasks
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_watches_recover_within_five_seconds_after_an_outage() {
        for watches in [1, 2, 500] {
            let (fake, supervisor) = (Fake::default(), WatchSupervisor::new("fake".into()));
            let tasks = fake.follow(&supervisor, watches);
            sleep(Duration::from_secs(600)).await;
            assert_eq!(supervisor.status().failing(), watches);
            fake.up.store(true, Ordering::SeqCst);
            let back = Instant::now();
            let last = tasks.join_all().await.into_iter().max().unwrap();
            let took = last - back;
            assert!(took < Duration::from_secs(5), "{watches}: {took:?}");
            assert_eq!(supervisor.status().failing(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn during_an_outage_each_watch_backs_off_and_only_one_at_a_time_probes() {
        let attempts = async |watches: usize| {
            let (fake, supervisor) = (Fake::default(), WatchSupervisor::new("fake".into()));
            let tasks = fake.follow(&supervisor, watches);
            sleep(Duration::from_secs(600)).await;
            drop(tasks);
            fake.attempts.load(Ordering::SeqCst)
        };
        // The prober retries at least every 2.5 s.
        let alone = attempts(1).await;
        assert!((240..600).contains(&alone), "{alone}");
        // 600 s / 15 s, a few short steps at first, and the probes.
        let many = attempts(200).await;
        assert!(many < 200 * 60 + 600, "{many}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_status_counts_running_and_failing_watches_and_their_attempts() {
        let (fake, supervisor) = (Fake::default(), WatchSupervisor::new("fake".into()));
        let watch = |subject: &str| {
            let fake = fake.clone();
            supervisor.supervise(subject, move || fake.watch())
        };
        let (mut first, mut second) = (watch("a"), watch("b"));
        assert_eq!(supervisor.status().to_string(), "fake: no answer yet");
        assert!(first.next().await.unwrap().is_err());
        sleep(Duration::from_secs(1)).await;
        assert!(second.next().await.unwrap().is_err());
        let failed = Instant::now();
        let status = supervisor.status();
        assert_eq!(status.provider(), "fake");
        assert_eq!(status.to_string(), "fake: 2 of 2 watches failing: no");
        assert_eq!(status.last_error().unwrap().message(), "no");
        assert_eq!((status.watches(), status.failing()), (2, 2));
        assert_eq!((status.failures(), status.reconnects()), (2, 0));
        assert_eq!((status.last_success(), status.age()), (None, None));

        drop(second);
        let status = supervisor.status();
        assert_eq!((status.watches(), status.failing()), (1, 1));

        fake.up.store(true, Ordering::SeqCst);
        first.next().await.unwrap().unwrap();
        let answered = Instant::now();
        sleep(Duration::from_secs(3)).await;
        let status = supervisor.status();
        assert_eq!(status.to_string(), "fake: available; 1 watch");
        assert_eq!((status.answers(), status.reconnects()), (1, 1));
        assert_eq!(status.last_error_at(), Some(failed));
        assert_eq!(status.last_success(), Some(answered));
        assert_eq!(status.age(), Some(Duration::ZERO));

        drop(first);
        sleep(Duration::from_secs(4)).await;
        let status = supervisor.status();
        assert_eq!(status.to_string(), "fake: no watch is running");
        assert_eq!((status.watches(), status.failing()), (0, 0));
        assert_eq!(status.age(), Some(Duration::from_secs(7)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_of_the_provider_is_a_failed_attempt_and_is_retried() {
        let supervisor = WatchSupervisor::new("fake".into());
        let mut attempt = 0;
        let mut watch = supervisor.supervise("orders", move || {
            attempt += 1;
            match attempt {
                1 => stream::iter([Ok(1)])
                    .chain(stream::once(async { panic!("index out of bounds") }))
                    .boxed(),
                2 => panic!("no address"),
                number => stream::iter([Ok(number)]).chain(stream::pending()).boxed(),
            }
        });
        assert_eq!(watch.next().await.unwrap().unwrap(), 1);
        for message in ["index out of bounds", "no address"] {
            let error = watch.next().await.unwrap().unwrap_err();
            assert!(error.message().contains(message), "{error}");
            assert_eq!(supervisor.status().failing(), 1);
        }
        assert_eq!(watch.next().await.unwrap().unwrap(), 3);
        assert_eq!(supervisor.status().failing(), 0);
        assert_eq!(supervisor.status().failures(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_answer_and_end_start_at_least_a_second_apart() {
        for fails in [false, true] {
            let supervisor = WatchSupervisor::new("fake".into());
            let attempts = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&attempts);
            let mut watch = supervisor.supervise("orders", move || {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = stream::iter([Ok(())]);
                let error = fails.then(|| Err(ProviderError::unreachable("fake", "gone")));
                answer.chain(stream::iter(error)).boxed()
            });
            let follow = async { while watch.next().await.is_some() {} };
            let _ = tokio::time::timeout(Duration::from_secs(60), follow).await;
            let attempts = attempts.load(Ordering::SeqCst);
            assert!((20..=61).contains(&attempts), "{attempts}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_watch_does_not_retry_sooner_because_others_succeed() {
        let supervisor = WatchSupervisor::new("fake".into());
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&attempts);
        let mut refused = supervisor.supervise("secret", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let kind = crate::ProviderErrorKind::NotAuthorised;
            stream::iter([Err::<(), _>(ProviderError::new("fake", kind, "403"))]).boxed()
        });
        let task = tokio::spawn(async move { while refused.next().await.is_some() {} });
        let mut flapping = supervisor.supervise("flapping", || {
            stream::iter([Ok(()), Err(ProviderError::unreachable("fake", "gone"))]).boxed()
        });
        let until = Instant::now() + Duration::from_secs(600);
        while Instant::now() < until {
            let _ = flapping.next().await;
        }
        let attempts = attempts.load(Ordering::SeqCst);
        assert!(attempts < 90, "{attempts}");
        task.abort();
    }
}
