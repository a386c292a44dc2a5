//! Time limits of a connection: a stream and a request body that fail when the client is too slow.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// A year, which stands for no limit. Longer durations are reduced to it, since adding them to the time
/// could overflow.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The minimum rate of a body in bytes per second, once its fixed time limit is used up. Otherwise a
/// client could keep a request open for days by sending a byte now and then.
const MIN_BODY_RATE: u64 = 1024;

/// The time limits for a client.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// From the first byte of a request to the end of its head.
    pub(super) header: Duration,
    /// For a request body, in addition to a second for each [`MIN_BODY_RATE`] bytes.
    pub(super) body: Duration,
    /// How long the client may read nothing of the response.
    pub(super) write: Duration,
    /// Between requests.
    pub(super) idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(30),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            // Longer than the idle timeout of usual connection pools (90 s), so that the client
            // closes the connection, and no request is lost on a connection that is being closed.
            idle: Duration::from_secs(120),
        }
    }
}

/// The activity of a connection. Shared by its stream and the service that answers requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity(Arc<ActivityState>);

#[derive(Debug, Default)]
struct ActivityState {
    /// Requests whose head has been received.
    started: AtomicUsize,
    /// Requests whose response has not ended.
    in_flight: AtomicUsize,
    /// Whether the connection has changed to another protocol, such as WebSocket.
    is_upgraded: AtomicBool,
    /// The task that reads from the connection.
    reader: AtomicWaker,
}

impl Activity {
    /// Records that a request head has been received.
    pub(super) fn request_started(&self) -> RequestGuard {
        self.0.started.fetch_add(1, Ordering::SeqCst);
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        RequestGuard(self.clone())
    }

    /// Records that the connection no longer carries HTTP.
    pub(super) fn upgraded(&self) {
        self.0.is_upgraded.store(true, Ordering::SeqCst);
    }

    /// Whether the connection waits for a request.
    fn is_idle(&self) -> bool {
        self.0.in_flight.load(Ordering::SeqCst) == 0 && !self.0.is_upgraded.load(Ordering::SeqCst)
    }
}

/// A request in flight, until it is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard(Activity);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.0.in_flight.fetch_sub(1, Ordering::SeqCst);
        // Wakes the stream, so that it starts the timer for the next request.
        self.0.0.reader.wake();
    }
}

/// A stream that fails with [`io::ErrorKind::TimedOut`] when the client is too slow to send a
/// request head or to read, or is idle for too long.
pub(super) struct TimeoutStream<S> {
    stream: S,
    timeouts: Timeouts,
    activity: Activity,
    /// What the read timer limits.
    waiting: Option<Waiting>,
    /// The number of requests that had started when the timer was set.
    started: usize,
    read_timer: Pin<Box<Sleep>>,
    /// Whether the write timer is set, because the client reads nothing.
    is_write_blocked: bool,
    write_timer: Pin<Box<Sleep>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    ForFirstByte,
    ForHead,
}

impl<S> TimeoutStream<S> {
    pub(super) fn new(stream: S, timeouts: Timeouts, activity: Activity) -> Self {
        Self {
            stream,
            timeouts,
            activity,
            waiting: None,
            started: 0,
            read_timer: Box::pin(sleep(NEVER)),
            is_write_blocked: false,
            write_timer: Box::pin(sleep(NEVER)),
        }
    }

    /// What the connection is waiting for; `None` while a request is in flight.
    fn waiting(&mut self) -> Option<Waiting> {
        let started = self.activity.0.started.load(Ordering::SeqCst);
        if self.started != started || !self.activity.is_idle() {
            self.started = started;
            self.waiting = None;
        }
        self.waiting
    }

    fn wait_for(&mut self, waiting: Waiting) {
        self.waiting = Some(waiting);
        let limit = match waiting {
            Waiting::ForFirstByte => self.timeouts.idle,
            Waiting::ForHead => self.timeouts.header,
        };
        self.read_timer.as_mut().reset(after(limit));
    }

    /// Records that bytes have arrived. Fails if they belong to a request head that is late.
    fn bytes_read(&mut self) -> io::Result<()> {
        if self.waiting() != Some(Waiting::ForHead) {
            if self.activity.is_idle() {
                self.wait_for(Waiting::ForHead);
            }
            return Ok(());
        }
        if Instant::now() >= self.read_timer.deadline() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// Checks the timer while there is nothing to read.
    fn poll_read_timeout(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.0.reader.register(context.waker());
        let waiting = self.waiting();
        if !self.activity.is_idle() {
            return Poll::Pending;
        }
        if waiting.is_none() {
            self.wait_for(Waiting::ForFirstByte);
        }
        ready!(self.read_timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes on the result of a write, which fails if no byte has been written for too long.
    fn check_write<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_write_blocked = false;
            return written;
        }
        if !self.is_write_blocked {
            self.is_write_blocked = true;
            self.write_timer.as_mut().reset(after(self.timeouts.write));
        }
        ready!(self.write_timer.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Pending => self.poll_read_timeout(context),
            Poll::Ready(Ok(())) if buffer.filled().len() > before => Poll::Ready(self.bytes_read()),
            ended => ended,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.check_write(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.check_write(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A request body that fails when the client takes too long to send it. Only the time during which the
/// application waits for the body counts.
pub(super) struct RequestBody {
    body: Incoming,
    /// How much longer the application may wait, not including the time since `waiting_since`.
    remaining: Duration,
    waiting_since: Option<Instant>,
    /// Set by the first wait; usually the body has arrived already.
    timer: Option<Pin<Box<Sleep>>>,
    timed_out: Arc<AtomicBool>,
}

impl RequestBody {
    /// Limits a body. `timed_out` becomes true if it does not arrive in time.
    pub(super) fn new(body: Incoming, timeout: Duration, timed_out: Arc<AtomicBool>) -> Self {
        Self {
            body,
            remaining: timeout.min(NEVER),
            waiting_since: None,
            timer: None,
            timed_out,
        }
    }

    fn arrived(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.remaining = self.remaining.saturating_sub(since.elapsed());
        }
        let earned = Duration::from_millis(bytes as u64 * 1000 / MIN_BODY_RATE);
        self.remaining = self.remaining.saturating_add(earned).min(NEVER);
    }

    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            self.waiting_since = Some(now);
            let deadline = now + self.remaining;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        match &mut self.timer {
            Some(timer) => timer.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                self.arrived(bytes);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.poll_timeout(context));
        self.timed_out.store(true, Ordering::SeqCst);
        let error = io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time");
        Poll::Ready(Some(Err(error.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that holds a value until it ends.
pub(super) struct ResponseBody<T> {
    body: Body,
    _held: T,
}

impl<T> ResponseBody<T> {
    pub(super) fn new(body: Body, held: T) -> Self {
        Self { body, _held: held }
    }
}

impl<T: Unpin> HttpBody for ResponseBody<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn after(limit: Duration) -> Instant {
    Instant::now() + limit.min(NEVER)
}
