//! Faults on demand, for tests of code that has to live with a registry that misbehaves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use event_listener::{Event, EventListener};

/// What an [`Agent`](crate::Agent) does wrong. Every fault lasts until it is taken back, and
/// [`heal`](Self::heal) takes back all of them.
///
/// | to see how code lives with | call |
/// | --- | --- |
/// | a registry that is down | [`refuse(true)`](Self::refuse) |
/// | one that has no leader, or is broken | [`fail(true)`](Self::fail) |
/// | one that is slow | [`delay(Some(time))`](Self::delay) |
/// | one that has lost everything for a while | [`empty(true)`](Self::empty) |
/// | one that was restored from a backup | [`reset_index()`](Self::reset_index) |
/// | a proxy that cuts long requests short | [`drop_watchers()`](Self::drop_watchers) |
///
/// ```
/// use std::time::Duration;
/// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// # async fn status(agent: &waypost_agent::Agent) -> Option<u16> {
/// #     let mut stream = tokio::net::TcpStream::connect(agent.http_addr()).await.ok()?;
/// #     let request = b"GET /v1/agent/services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// #     stream.write_all(request).await.ok()?;
/// #     let mut answer = String::new();
/// #     stream.read_to_string(&mut answer).await.ok()?;
/// #     answer.split(' ').nth(1)?.parse().ok()
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost_agent::Error> {
/// let agent = waypost_agent::Agent::start().await?;
/// let faults = agent.faults();
/// tokio::time::pause(); // or #[tokio::test(start_paused = true)]
///
/// faults.fail(true); // `status` asks the registry for its services
/// assert_eq!(status(&agent).await, Some(500));
///
/// faults.refuse(true);
/// assert_eq!(status(&agent).await, None);
///
/// faults.heal();
/// faults.delay(Some(Duration::from_secs(3600))); // takes no time: the clock is paused
/// assert_eq!(status(&agent).await, Some(200));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Faults {
    refuse: AtomicBool,
    fail: AtomicBool,
    empty: AtomicBool,
    delay: Mutex<Option<Duration>>,
    /// How much lower than the true index the one is that clients see.
    index_offset: AtomicU64,
    /// The highest index that clients have seen.
    last_index: AtomicU64,
    disturbance: Event,
}

impl Faults {
    /// Closes connections without an answer, as a registry that is down does.
    pub fn refuse(&self, on: bool) {
        self.refuse.store(on, Relaxed);
        if on {
            self.drop_watchers();
        }
    }

    /// Answers every request of the API with 500.
    pub fn fail(&self, on: bool) {
        self.fail.store(on, Relaxed);
    }

    /// Holds every answer back for this long.
    pub fn delay(&self, by: Option<Duration>) {
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Answers every question about the catalog and about health as if nothing were registered.
    /// Watchers learn of it at once.
    pub fn empty(&self, on: bool) {
        self.empty.store(on, Relaxed);
        self.disturbance.notify(usize::MAX);
    }

    /// Starts the index again from 1, as after a registry was restored from a backup. Watchers
    /// are dropped.
    pub fn reset_index(&self) {
        let offset = self.last_index.load(Relaxed).saturating_sub(1);
        self.index_offset.store(offset, Relaxed);
        self.drop_watchers();
    }

    /// Closes the connections of all requests that wait for a change, once.
    pub fn drop_watchers(&self) {
        self.disturbance.notify(usize::MAX);
    }

    /// Takes back all faults.
    pub fn heal(&self) {
        self.refuse(false);
        self.fail(false);
        self.delay(None);
        self.empty(false);
        self.index_offset.store(0, Relaxed);
    }

    pub(crate) fn refuses(&self) -> bool {
        self.refuse.load(Relaxed)
    }

    pub(crate) fn fails(&self) -> bool {
        self.fail.load(Relaxed)
    }

    pub(crate) fn empties(&self) -> bool {
        self.empty.load(Relaxed)
    }

    pub(crate) fn delay_of_answers(&self) -> Option<Duration> {
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index that clients see for a true one: never 0, which would make them spin.
    pub(crate) fn shown_index(&self, index: u64) -> u64 {
        self.last_index.fetch_max(index, Relaxed);
        index.saturating_sub(self.index_offset.load(Relaxed)).max(1)
    }

    /// Resolves when a fault is to be felt by those who wait.
    pub(crate) fn disturbed(&self) -> EventListener {
        self.disturbance.listen()
    }
}
