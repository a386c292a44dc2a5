//! Ends an evaluation that takes too long, or whose client has disconnected.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

/// Shared by an evaluation and the task that waits for its result.
#[derive(Debug)]
pub(crate) struct EvaluationLimit {
    deadline: Instant,
    cancelled: AtomicBool,
    exceeded: AtomicBool,
}

impl EvaluationLimit {
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            deadline: Instant::now() + time,
            cancelled: AtomicBool::new(false),
            exceeded: AtomicBool::new(false),
        }
    }

    /// Ends the evaluation: its result is no longer awaited.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// Whether the evaluation was ended before it was complete.
    pub(crate) fn is_exceeded(&self) -> bool {
        self.exceeded.load(Relaxed)
    }

    /// Whether the evaluation must end now. It stays ended.
    pub(super) fn must_end(&self) -> bool {
        let ends =
            self.is_exceeded() || self.cancelled.load(Relaxed) || Instant::now() >= self.deadline;
        if ends {
            self.exceeded.store(true, Relaxed);
        }
        ends
    }
}
