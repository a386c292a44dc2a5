//! An HTTP/1.1 connection to an instance that is driven by the request that uses it.
//!
//! If each connection had its own task, each request would need two switches between tasks. Here the
//! task that serves the client polls the connection itself: while it waits for the response, and while
//! it reads the body.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;

use super::stream::UpstreamStream;
use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::framing::MAX_HEAD;
use crate::request_body::AttemptBody;

/// hyper's future for a connection that can be upgraded. The trait is needed because its type can't be
/// named.
type Connection = BoxFuture<'static, hyper::Result<()>>;

/// A connection to an instance: hyper's sender of requests, and its future that does the I/O.
pub(crate) struct Http1 {
    sender: http1::SendRequest<AttemptBody>,
    /// `None` once the connection has ended. Dropping it returns a request that was not sent.
    connection: Option<Connection>,
    /// Whether it has served a request before this one.
    pub(super) is_reused: bool,
    /// When it became idle, in milliseconds since the worker started.
    pub(super) idle_since: u64,
}

/// Why a request could not be sent, or got no response.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) error: AttemptError,
    /// The request, if nothing of it was written.
    pub(crate) unsent: Option<Request<AttemptBody>>,
    /// The response has more header lines than hyper's limit.
    pub(crate) has_too_many_headers: bool,
}

impl SendError {
    /// `is_reused`: the connection had served requests before.
    pub(super) fn new(mut error: TrySendError<Request<AttemptBody>>, is_reused: bool) -> Self {
        let unsent = error.take_message();
        let hyper = error.error();
        let kind = if hyper.is_parse() {
            AttemptErrorKind::BadResponse
        } else if unsent.is_some() {
            AttemptErrorKind::Connect
        } else if is_reused {
            AttemptErrorKind::BrokenReused
        } else {
            AttemptErrorKind::Broken
        };
        Self {
            has_too_many_headers: hyper.is_parse_too_large(),
            error: AttemptError::from_hyper(kind, hyper),
            unsent,
        }
    }
}

impl Http1 {
    pub(super) async fn start(
        stream: UpstreamStream,
        max_headers: Option<usize>,
    ) -> Result<Self, AttemptError> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        if let Some(max) = max_headers {
            builder.max_headers(max);
        }
        let handshake = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake
            .map_err(|error| AttemptError::new(AttemptErrorKind::Connect, error.to_string()))?;
        Ok(Self {
            sender,
            connection: Some(Box::pin(connection.with_upgrades())),
            is_reused: false,
            idle_since: 0,
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        request: Request<AttemptBody>,
    ) -> Result<Response<Incoming>, SendError> {
        let Self {
            sender,
            connection,
            is_reused,
            ..
        } = self;
        let mut response = pin!(sender.try_send_request(request));
        let result = poll_fn(|cx| {
            drive(connection, cx);
            // Only polling the connection can complete the response, so no waker is needed.
            response
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
        })
        .await;
        result.map_err(|error| SendError::new(error, *is_reused))
    }

    /// Reads and writes as much as possible without waiting.
    fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.connection, cx);
    }

    /// Whether another request can be sent. Notices that the instance has closed the connection.
    pub(super) fn is_ready(&mut self) -> bool {
        // No task waits for an idle connection. If one were registered, sending the next request would wake
        // it.
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Spawns a task that drives the connection until the current request is done. For requests that are
    /// sent and answered at the same time.
    pub(crate) fn detach(self) {
        let Self {
            sender, connection, ..
        } = self;
        drop(sender);
        if let Some(connection) = connection {
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to an instance failed");
                }
            });
        }
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1")
            .field("is_reused", &self.is_reused)
            .finish_non_exhaustive()
    }
}

/// Polls the body of a response for its next frame. Drives the connection that it comes from if no frame
/// has been received yet; `None` if the connection has a task of its own.
pub(crate) fn poll_frame(
    incoming: &mut Incoming,
    connection: &mut Option<Http1>,
    cx: &mut Context<'_>,
) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
    let mut incoming = Pin::new(incoming);
    let Some(connection) = connection else {
        return incoming.poll_frame(cx);
    };
    // A frame can only arrive while the connection is driven here, so no waker is needed.
    let mut noop = Context::from_waker(Waker::noop());
    let polled = incoming.as_mut().poll_frame(&mut noop);
    if polled.is_ready() {
        return polled;
    }
    connection.drive(cx);
    incoming.poll_frame(&mut noop)
}

fn drive(connection: &mut Option<Connection>, cx: &mut Context<'_>) {
    if let Some(polled) = connection
        && polled.as_mut().poll(cx).is_ready()
    {
        *connection = None;
    }
}
