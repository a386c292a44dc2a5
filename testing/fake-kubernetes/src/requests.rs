//! The requests that were made, for tests that count them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many are remembered.
const MOST: usize = 100_000;

/// A request for objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// When it came, since the server was made.
    pub at: Duration,
    /// Whose it was; empty if that can't be told.
    pub user: String,
    /// `list`, `watch`, `get` and so on.
    pub verb: String,
    /// The plural, such as `endpointslices`.
    pub resource: String,
    /// Empty for all.
    pub namespace: String,
    /// What follows the `?`.
    pub query: String,
    /// The status that it was answered with; None if it has not been answered yet.
    pub code: Option<u16>,
}

/// All of them, and how many watches are open.
#[derive(Debug)]
pub(crate) struct Requests {
    start: Instant,
    log: Mutex<Log>,
    watches: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Log {
    /// The number of the first that is remembered.
    first: usize,
    requests: VecDeque<Request>,
}

/// Counts an open watch until dropped.
pub(crate) struct OpenWatch(Arc<AtomicUsize>);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Requests {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            log: Mutex::default(),
            watches: Arc::default(),
        }
    }

    /// Notes a request, and gives its number.
    pub(crate) fn begin(&self, mut request: Request) -> usize {
        request.at = self.start.elapsed();
        let mut log = self.log();
        if log.requests.len() == MOST {
            log.requests.pop_front();
            log.first += 1;
        }
        log.requests.push_back(request);
        log.first + log.requests.len() - 1
    }

    pub(crate) fn end(&self, number: usize, code: u16) {
        let mut log = self.log();
        let place = number.checked_sub(log.first);
        if let Some(request) = place.and_then(|it| log.requests.get_mut(it)) {
            request.code = Some(code);
        }
    }

    pub(crate) fn all(&self) -> Vec<Request> {
        self.log().requests.iter().cloned().collect()
    }

    pub(crate) fn forget(&self) {
        let mut log = self.log();
        log.first += log.requests.len();
        log.requests.clear();
    }

    pub(crate) fn open_watch(&self) -> OpenWatch {
        self.watches.fetch_add(1, Relaxed);
        OpenWatch(Arc::clone(&self.watches))
    }

    pub(crate) fn open_watches(&self) -> usize {
        self.watches.load(Relaxed)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
