//! The requests that were made, for tests that count them.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of requests that are kept.
const CAPACITY: usize = 100_000;

/// A request for objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The user's name; empty if the credentials were refused.
    pub user: String,
    /// `list`, `watch`, `get` and so on.
    pub verb: String,
    /// The plural, such as `endpointslices`.
    pub resource: String,
    /// The namespace of the objects; empty for all namespaces.
    pub namespace: String,
    /// The query, without the `?`.
    pub query: String,
    /// The status of the response; `None` until it is sent.
    pub code: Option<u16>,
}

/// All requests, and the number of open watches.
#[derive(Debug, Default)]
pub(crate) struct RequestLog {
    entries: Mutex<Entries>,
    open_watches: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Entries {
    /// The number of the first request that is kept.
    first: usize,
    requests: VecDeque<Request>,
}

/// Counts an open watch until it is dropped.
pub(crate) struct OpenWatch(Arc<AtomicUsize>);

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl RequestLog {
    /// Adds a request, and returns its number.
    pub(crate) fn begin(&self, request: Request) -> usize {
        let mut entries = self.entries();
        if entries.requests.len() == CAPACITY {
            entries.requests.pop_front();
            entries.first += 1;
        }
        entries.requests.push_back(request);
        entries.first + entries.requests.len() - 1
    }

    /// Records the status of the response to a request.
    pub(crate) fn end(&self, number: usize, code: u16) {
        let mut entries = self.entries();
        let index = number.checked_sub(entries.first);
        if let Some(request) = index.and_then(|it| entries.requests.get_mut(it)) {
            request.code = Some(code);
        }
    }

    pub(crate) fn all(&self) -> Vec<Request> {
        self.entries().requests.iter().cloned().collect()
    }

    pub(crate) fn clear(&self) {
        let mut entries = self.entries();
        entries.first += entries.requests.len();
        entries.requests.clear();
    }

    pub(crate) fn open_watch(&self) -> OpenWatch {
        self.open_watches.fetch_add(1, Relaxed);
        OpenWatch(Arc::clone(&self.open_watches))
    }

    pub(crate) fn open_watches(&self) -> usize {
        self.open_watches.load(Relaxed)
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
