//! The data of a client's connection that its requests use.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::deadlines::Deadline;
use crate::forwarded::Forwarding;
use crate::framing::FramingFault;
use crate::worker::Worker;

/// The data that the requests of one connection share.
pub(crate) struct Client {
    worker: Arc<Worker>,
    peer: SocketAddr,
    peer_text: String,
    pub(crate) forwarding: Forwarding,
    pub(crate) framing_fault: FramingFault,
    pub(crate) state: Arc<ConnectionState>,
    /// The time limit of the current request. With HTTP/2, each request has its own.
    deadline: Option<Arc<Deadline>>,
}

/// The state that the requests of a connection share with its byte stream.
#[derive(Debug, Default)]
pub(crate) struct ConnectionState {
    /// The number of requests that have begun, and of those that have ended.
    begun: AtomicU32,
    ended: AtomicU32,
    /// The number of reads from an HTTP/2 connection.
    reads: AtomicU32,
    reading: AtomicU8,
    /// Whether something has been written but not flushed.
    writing: AtomicBool,
    /// Whether to close with a reset, so that the client notices that a response is incomplete.
    reset: AtomicBool,
    /// Whether hyper's connection is shut down while the socket stays open.
    released: AtomicBool,
}

/// What the byte stream of a connection is reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reading {
    /// It isn't waiting for more.
    Nothing,
    /// The next request.
    Request,
    /// The rest of a head.
    Head,
    /// The rest of a body, or a request after empty lines.
    Rest,
}

/// What is expected of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// A request is in progress, which has limits of its own.
    Nothing,
    /// The next request.
    Request,
    /// The rest of a request's head.
    Head,
    /// The rest of a request that was answered before it was complete, or a request after empty lines.
    Rest,
}

impl Client {
    pub(crate) fn new(
        worker: Arc<Worker>,
        peer: SocketAddr,
        forwarding: Forwarding,
        is_http2: bool,
        state: Arc<ConnectionState>,
        framing_fault: FramingFault,
    ) -> Self {
        Self {
            forwarding,
            deadline: (!is_http2).then(|| worker.deadlines().deadline()),
            worker,
            peer,
            peer_text: peer.to_string(),
            framing_fault,
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
        self.state.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.state.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes the connection end with a reset.
    pub(crate) fn reset_when_closed(&self) {
        self.state.reset.store(true, Ordering::Relaxed);
    }
}

impl ConnectionState {
    /// What is expected of the client as of now.
    pub(crate) fn expected(&self) -> Expected {
        let has_requests = self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed);
        if has_requests || self.writing.load(Ordering::Relaxed) {
            return Expected::Nothing;
        }
        let reading = self.reading.load(Ordering::Relaxed);
        match reading {
            _ if reading == Reading::Request as u8 => Expected::Request,
            _ if reading == Reading::Head as u8 => Expected::Head,
            _ if reading == Reading::Rest as u8 => Expected::Rest,
            _ => Expected::Nothing,
        }
    }

    /// A number that changes whenever the client has sent a request, or anything over HTTP/2.
    pub(crate) fn activity(&self) -> u32 {
        let begun = self.begun.load(Ordering::Relaxed);
        begun.wrapping_add(self.reads.load(Ordering::Relaxed))
    }

    pub(crate) fn count_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn set_reading(&self, reading: Reading) {
        self.reading.store(reading as u8, Ordering::Relaxed);
    }

    pub(crate) fn set_writing(&self, is_writing: bool) {
        self.writing.store(is_writing, Ordering::Relaxed);
    }

    pub(crate) fn must_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }

    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    pub(crate) fn set_released(&self, is_released: bool) {
        self.released.store(is_released, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_expected_to_send_only_while_no_request_is_in_progress() {
        let state = ConnectionState::default();
        for (reading, expected) in [
            (Reading::Nothing, Expected::Nothing),
            (Reading::Request, Expected::Request),
            (Reading::Head, Expected::Head),
            (Reading::Rest, Expected::Rest),
        ] {
            state.set_reading(reading);
            assert_eq!(state.expected(), expected);
            state.set_writing(true);
            assert_eq!(state.expected(), Expected::Nothing);
            state.set_writing(false);
            state.begun.fetch_add(1, Ordering::Relaxed);
            assert_eq!(state.expected(), Expected::Nothing);
            state.ended.fetch_add(1, Ordering::Relaxed);
            assert_eq!(state.expected(), expected);
        }
    }

    #[test]
    fn requests_and_reads_are_activity() {
        let state = ConnectionState::default();
        let before = state.activity();
        state.begun.fetch_add(1, Ordering::Relaxed);
        assert_ne!(state.activity(), before);
        let before = state.activity();
        state.count_read();
        assert_ne!(state.activity(), before);
        let before = state.activity();
        state.ended.fetch_add(1, Ordering::Relaxed);
        state.set_reading(Reading::Head);
        assert_eq!(state.activity(), before);
    }
}
