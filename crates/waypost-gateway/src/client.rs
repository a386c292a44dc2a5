//! The data of a client's connection that its requests use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::deadlines::Deadline;
use crate::forwarded::Forwarding;
use crate::framing::FramingConflict;
use crate::worker::Worker;

/// The data that the requests of one connection share.
pub(crate) struct Client {
    worker: Arc<Worker>,
    peer: SocketAddr,
    peer_text: String,
    pub(crate) forwarding: Forwarding,
    pub(crate) conflict: FramingConflict,
    pub(crate) state: Arc<ConnectionState>,
    /// The time limit of the current request. With HTTP/2, each request has its own.
    deadline: Option<Arc<Deadline>>,
}

/// The data about the requests that the byte stream of the connection uses.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    /// The number of requests that have begun and not ended.
    in_progress: AtomicU32,
    /// Whether to close with a reset, so that the client notices that a response is incomplete.
    reset: AtomicBool,
}

impl Client {
    pub(crate) fn new(
        worker: Arc<Worker>,
        peer: SocketAddr,
        forwarding: Forwarding,
        is_http2: bool,
        state: Arc<ConnectionState>,
        conflict: FramingConflict,
    ) -> Self {
        Self {
            forwarding,
            deadline: (!is_http2).then(|| worker.deadlines().deadline()),
            worker,
            peer,
            peer_text: peer.to_string(),
            conflict,
            state,
        }
    }

    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client's address, for the access log.
    pub(crate) fn peer_text(&self) -> &str {
        &self.peer_text
    }

    /// Creates the time limit for one request. It is not set yet.
    pub(crate) fn request_deadline(&self) -> Arc<Deadline> {
        match &self.deadline {
            Some(deadline) => {
                deadline.clear();
                Arc::clone(deadline)
            }
            None => self.worker.deadlines().deadline(),
        }
    }

    pub(crate) fn request_began(&self) {
        self.state.in_progress.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.state.in_progress.fetch_sub(1, Ordering::Relaxed);
    }

    /// Makes the connection end with a reset.
    pub(crate) fn reset_when_closed(&self) {
        self.state.reset.store(true, Ordering::Relaxed);
    }
}

impl ConnectionState {
    pub(crate) fn is_idle(&self) -> bool {
        self.in_progress.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn must_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}
