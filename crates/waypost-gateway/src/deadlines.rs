//! Coarse time limits: one periodic task per worker instead of a timer per request.
//!
//! Setting a limit is a single memory write. A task checks all limits ten times a second and wakes the
//! tasks whose limit has passed, so limits are accurate to about 0.2 s. Timers of the runtime would be
//! exact, but setting one for each request takes too much CPU time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How often limits are checked.
pub(crate) const RESOLUTION: Duration = Duration::from_millis(100);

/// The value of a limit that is not set.
const UNSET: u64 = u64::MAX;

/// The time limits of one worker's connections and requests.
#[derive(Clone, Debug)]
pub(crate) struct Deadlines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    /// Milliseconds since `epoch`, as of the last check.
    now: AtomicU64,
    limits: Mutex<Vec<Weak<Deadline>>>,
    added: Notify,
}

/// One time limit, which can be set again and again.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: AtomicU64,
    waker: AtomicWaker,
    shared: Arc<Shared>,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            epoch: Instant::now(),
            now: AtomicU64::new(0),
            limits: Mutex::default(),
            added: Notify::new(),
        }))
    }

    /// A limit that is not set yet.
    pub(crate) fn deadline(&self) -> Arc<Deadline> {
        let deadline = Arc::new(Deadline {
            at: AtomicU64::new(UNSET),
            waker: AtomicWaker::new(),
            shared: Arc::clone(&self.0),
        });
        self.0.update_now();
        let mut limits = self.0.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.push(Arc::downgrade(&deadline));
        if limits.len() == 1 {
            self.0.added.notify_one();
        }
        deadline
    }

    /// Milliseconds since the worker started, as of the last look at the limits.
    pub(crate) fn now(&self) -> u64 {
        self.0.now.load(Ordering::Relaxed)
    }

    /// Wakes the tasks of all limits, whether or not these have passed.
    pub(crate) fn wake_all(&self) {
        self.0.wake(|_| true);
    }

    /// Wakes tasks whose limit has passed, and calls `tick` after each check. Sleeps while there is no
    /// limit and `tick` returns false. Never returns.
    pub(crate) async fn run(&self, mut tick: impl FnMut() -> bool) {
        loop {
            self.0.update_now();
            let now = self.now();
            let left = self
                .0
                .wake(|deadline| deadline.at.load(Ordering::Relaxed) <= now);
            if !tick() && left == 0 {
                self.0.added.notified().await;
            } else {
                tokio::time::sleep(RESOLUTION).await;
            }
        }
    }
}

impl Shared {
    fn update_now(&self) {
        let now = self.epoch.elapsed().as_millis() as u64;
        self.now.store(now, Ordering::Relaxed);
    }

    /// Wakes the tasks of the chosen limits. Returns the number of all limits.
    fn wake(&self, is_chosen: impl Fn(&Deadline) -> bool) -> usize {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.retain(|limit| {
            let Some(deadline) = limit.upgrade() else {
                return false;
            };
            if is_chosen(&deadline) {
                deadline.waker.wake();
            }
            true
        });
        limits.len()
    }
}

impl Deadline {
    /// Sets the limit to the given time from now.
    pub(crate) fn set(&self, after: Duration) {
        let after = after.as_millis().try_into().unwrap_or(UNSET);
        let at = self
            .shared
            .now
            .load(Ordering::Relaxed)
            .saturating_add(after);
        self.at.store(at, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.at.store(UNSET, Ordering::Relaxed);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.at.load(Ordering::Relaxed) != UNSET
    }

    /// The time until it passes.
    pub(crate) fn left(&self) -> Duration {
        let at = self.at.load(Ordering::Relaxed);
        Duration::from_millis(at.saturating_sub(self.now()))
    }

    pub(crate) fn has_passed(&self) -> bool {
        self.at.load(Ordering::Relaxed) <= self.shared.now.load(Ordering::Relaxed)
    }

    /// Milliseconds since the worker started, as of the last look at the limits.
    pub(crate) fn now(&self) -> u64 {
        self.shared.now.load(Ordering::Relaxed)
    }

    /// Sets the task to wake when the limit has passed.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_is_woken_soon_after_its_limit_and_not_before() {
        let deadlines = Deadlines::new();
        let deadline = deadlines.deadline();
        let began = Instant::now();
        deadline.set(Duration::from_secs(3));
        let passed = poll_fn(|cx| {
            deadline.register(cx.waker());
            if deadline.has_passed() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        tokio::select! {
            () = passed => {}
            () = deadlines.run(|| false) => {}
        }
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(3), "{took:?}");
        assert!(took <= Duration::from_secs(3) + 2 * RESOLUTION, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_task_sleeps_while_there_is_no_limit() {
        let deadlines = Deadlines::new();
        let mut looks = 0;
        let running = deadlines.run(|| {
            looks += 1;
            false
        });
        let _ = tokio::time::timeout(Duration::from_secs(3600), running).await;
        assert_eq!(looks, 1);
    }
}
