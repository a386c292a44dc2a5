//! The current time, read once and passed down, so that state changes are functions of their input.

use std::time::SystemTime;

use tokio::time::Instant;

/// The same moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) monotonic: Instant,
    /// For comparison with timestamps written by other processes.
    pub(crate) wall: SystemTime,
}

impl Now {
    pub(crate) fn read() -> Self {
        Self {
            monotonic: Instant::now(),
            wall: SystemTime::now(),
        }
    }
}
