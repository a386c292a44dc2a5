//! Fault injection, for tests of how clients handle a misbehaving registry.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use event_listener::{Event, EventListener};

/// The faults of an [`Agent`](crate::Agent). A fault lasts until it is turned off; [`heal`](Self::heal)
/// turns off all faults.
///
/// | to simulate | call |
/// | --- | --- |
/// | a registry that is down | [`refuse(true)`](Self::refuse) |
/// | a registry without a leader, or one that is broken | [`fail(true)`](Self::fail) |
/// | a slow registry | [`delay(Some(time))`](Self::delay) |
/// | a registry that has lost its data | [`empty(true)`](Self::empty) |
/// | a registry that was restored from a backup | [`reset_index()`](Self::reset_index) |
/// | a proxy that closes long requests | [`drop_watchers()`](Self::drop_watchers) |
///
/// ```
/// use std::time::Duration;
/// # use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// # async fn status(agent: &waypost_agent::Agent) -> Option<u16> {
/// #     let mut stream = tokio::net::TcpStream::connect(agent.http_addr()).await.ok()?;
/// #     let request = b"GET /v1/agent/services HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// #     stream.write_all(request).await.ok()?;
/// #     let mut response = String::new();
/// #     stream.read_to_string(&mut response).await.ok()?;
/// #     response.split(' ').nth(1)?.parse().ok()
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost_agent::Error> {
/// let agent = waypost_agent::Agent::start().await?;
/// let faults = agent.faults();
/// tokio::time::pause(); // or #[tokio::test(start_paused = true)]
///
/// faults.fail(true); // `status` requests the services of the registry
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
    full_disk: AtomicBool,
    fail: AtomicBool,
    empty: AtomicBool,
    delay: Mutex<Option<Duration>>,
    /// The difference between the real index and the one that clients see.
    index_offset: AtomicU64,
    /// The highest index that clients have seen.
    last_index: AtomicU64,
    interruption: Event,
}

impl Faults {
    /// Closes connections without a response, as a registry that is down.
    pub fn refuse(&self, on: bool) {
        self.refuse.store(on, Relaxed);
        if on {
            self.drop_watchers();
        }
    }

    /// Responds to every API request with 500.
    pub fn fail(&self, on: bool) {
        self.fail.store(on, Relaxed);
    }

    /// No change can be written to the data directory, as on a full disk. Writes fail with 500 and
    /// change nothing.
    pub fn full_disk(&self, on: bool) {
        self.full_disk.store(on, Relaxed);
    }

    /// Delays every response by this long. `None` turns the delay off.
    pub fn delay(&self, by: Option<Duration>) {
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner) = by;
    }

    /// Responds to every catalog and health query as if nothing were registered. Wakes blocking
    /// queries.
    pub fn empty(&self, on: bool) {
        self.empty.store(on, Relaxed);
        self.interruption.notify(usize::MAX);
    }

    /// Restarts the index at 1, as if the registry had been restored from a backup. Closes the
    /// connections of blocking queries.
    pub fn reset_index(&self) {
        let offset = self.last_index.load(Relaxed).saturating_sub(1);
        self.index_offset.store(offset, Relaxed);
        self.drop_watchers();
    }

    /// Closes the connections of all blocking queries, once.
    pub fn drop_watchers(&self) {
        self.interruption.notify(usize::MAX);
    }

    /// Turns off all faults.
    pub fn heal(&self) {
        self.refuse(false);
        self.fail(false);
        self.full_disk(false);
        self.delay(None);
        self.empty(false);
        self.index_offset.store(0, Relaxed);
    }

    pub(crate) fn has_full_disk(&self) -> bool {
        self.full_disk.load(Relaxed)
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.refuse.load(Relaxed)
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.fail.load(Relaxed)
    }

    pub(crate) fn returns_empty(&self) -> bool {
        self.empty.load(Relaxed)
    }

    pub(crate) fn response_delay(&self) -> Option<Duration> {
        *self.delay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The index that clients see. It is never 0, because clients would then poll without waiting.
    pub(crate) fn shown_index(&self, index: u64) -> u64 {
        self.last_index.fetch_max(index, Relaxed);
        index.saturating_sub(self.index_offset.load(Relaxed)).max(1)
    }

    /// Notified when a fault affects blocking queries.
    pub(crate) fn interrupted(&self) -> EventListener {
        self.interruption.listen()
    }
}
