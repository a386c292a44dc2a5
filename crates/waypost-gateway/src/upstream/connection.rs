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

/// A connection to an instance: hyper's sender of requests, and its future that does the I/O.
pub(crate) struct Http1 {
    sender: http1::SendRequest<AttemptBody>,
    io: ConnectionIo,
    /// Whether it has served a request before this one.
    pub(super) is_reused: bool,
    /// When it became idle, in milliseconds since the worker started.
    pub(super) idle_since: u64,
}

/// hyper's future for a connection. It reads and writes while it is polled.
struct ConnectionIo {
    /// `None` once the connection has ended. Dropping the future returns a request that was not sent. It is
    /// boxed because the type of an upgradeable connection can't be named.
    future: Option<BoxFuture<'static, hyper::Result<()>>>,
    /// Whether it was last driven with the waker of a task, which it may still wake.
    wakes_task: bool,
}

/// Why a request could not be sent, or got no response.
#[derive(Debug)]
pub(crate) struct SendError {
    pub(crate) error: AttemptError,
    /// The request, if nothing of it was written. Boxed, so that the result of sending a request is small.
    pub(crate) unsent: Option<Box<Request<AttemptBody>>>,
    /// The response has more header lines than hyper's limit.
    pub(crate) has_too_many_headers: bool,
}

impl SendError {
    /// `is_reused`: the connection had served requests before.
    #[cold]
    pub(super) fn new(mut error: TrySendError<Request<AttemptBody>>, is_reused: bool) -> Self {
        let unsent = error.take_message().map(Box::new);
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
            io: ConnectionIo {
                future: Some(Box::pin(connection.with_upgrades())),
                wakes_task: false,
            },
            is_reused: false,
            idle_since: 0,
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) fn send(
        &mut self,
        request: Request<AttemptBody>,
    ) -> impl Future<Output = Result<Response<Incoming>, SendError>> {
        let Self { sender, io, .. } = self;
        let is_reused = self.is_reused;
        // Outside the future: a request in it would be copied each time the future is moved.
        let response = sender.try_send_request(request);
        async move {
            let mut response = pin!(response);
            let mut is_sent = false;
            let result = poll_fn(|cx| {
                // Only driving the connection can complete the response, so no waker is needed.
                let mut noop = Context::from_waker(Waker::noop());
                if is_sent {
                    // The task was woken, so the response has probably arrived.
                    io.drive_quietly();
                    let polled = response.as_mut().poll(&mut noop);
                    if polled.is_ready() {
                        return polled;
                    }
                }
                is_sent = true;
                io.drive(cx);
                response.as_mut().poll(&mut noop)
            })
            .await;
            result.map_err(|error| SendError::new(error, is_reused))
        }
    }

    /// Whether another request can be sent. Notices that the instance has closed the connection.
    pub(super) fn is_ready(&mut self) -> bool {
        self.io.drive_quietly();
        self.io.future.is_some() && self.sender.is_ready()
    }

    /// Like [`is_ready`](Self::is_ready), but usually without I/O: for a connection whose response has just been
    /// read.
    pub(super) fn is_ready_again(&mut self) -> bool {
        // Usually it became ready when it was last driven.
        let is_ready = self.io.future.is_some() && !self.io.wakes_task && self.sender.is_ready();
        is_ready || self.is_ready()
    }

    /// Spawns a task that drives the connection until the current request is done. For requests that are
    /// sent and answered at the same time.
    pub(crate) fn detach(self) {
        let Self { sender, io, .. } = self;
        drop(sender);
        if let Some(connection) = io.future {
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection to an instance failed");
                }
            });
        }
    }
}

impl ConnectionIo {
    /// Reads and writes as much as possible without waiting. The task is woken when more is possible.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(future) = &mut self.future
            && future.as_mut().poll(cx).is_ready()
        {
            self.future = None;
        }
        self.wakes_task = true;
    }

    /// Like [`drive`](Self::drive), but wakes no task. When a body is polled or a request is sent, hyper wakes the
    /// task that last drove the connection. If that were the current task, it would be polled once more for
    /// nothing.
    fn drive_quietly(&mut self) {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.wakes_task = false;
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
    if !connection.io.wakes_task {
        // The rest of a short response has usually arrived with its head.
        connection.io.drive_quietly();
        let polled = incoming.as_mut().poll_frame(&mut noop);
        if polled.is_ready() {
            return polled;
        }
    }
    connection.io.drive(cx);
    incoming.poll_frame(&mut noop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::transport::Transport;

    /// A waker that counts how often it is used.
    struct CountingWaker {
        count: AtomicUsize,
        inner: Waker,
    }

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.count.fetch_add(1, Ordering::SeqCst);
            self.inner.wake_by_ref();
        }
    }

    #[tokio::test]
    async fn the_task_of_a_request_is_woken_only_when_the_instance_has_sent_something() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (mut server, _) = listener.accept().await.unwrap();
        let stream = UpstreamStream::new(Transport::Plain(stream.unwrap()));
        let mut http = Http1::start(stream, None).await.unwrap();
        let inner = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let waker = Arc::new(CountingWaker {
            count: AtomicUsize::new(0),
            inner,
        });
        let counting = Waker::from(Arc::clone(&waker));
        for number in 1..=3 {
            let answer = async {
                let mut received = [0; 1024];
                assert!(server.read(&mut received).await.unwrap() > 0);
                let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
                server.write_all(response).await.unwrap();
            };
            let request = Request::new(AttemptBody::whole(Bytes::new()));
            let send = async {
                let mut sending = pin!(http.send(request));
                poll_fn(|_| sending.as_mut().poll(&mut Context::from_waker(&counting))).await
            };
            let (response, ()) = tokio::join!(send, answer);
            let mut body = response.unwrap().into_body();
            let mut connection = Some(http);
            let frame = poll_fn(|_| {
                let mut cx = Context::from_waker(&counting);
                poll_frame(&mut body, &mut connection, &mut cx)
            });
            let frame = frame.await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "hi");
            assert!(body.is_end_stream());
            http = connection.unwrap();
            assert!(http.is_ready_again());
            assert_eq!(waker.count.load(Ordering::SeqCst), number);
        }
    }
}
