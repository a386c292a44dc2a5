//! Serves HTTP on a client's connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::client::{Client, ConnectionState, Expected};
use crate::client_stream::{ClientLimits, ClientStream};
use crate::connection_context::{BoxError, ConnectionContext, ServeOutcome};
use crate::deadlines::Deadline;
use crate::forwarded::Forwarding;
use crate::framing::{FramingFault, MAX_HEAD};
use crate::response_body::ResponseBody;
use crate::transport::Transport;
use crate::worker::Worker;

/// How often an HTTP/2 connection is checked with a ping, and how long the response may take.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The number of concurrent requests on an HTTP/2 connection.
const MAX_STREAMS: u32 = 200;
/// How long an idle HTTP/1 connection keeps its buffers. A client that sends its next request sooner
/// doesn't make the gateway allocate them again.
const KEEP_BUFFERS: Duration = Duration::from_millis(100);

/// Serves HTTP/1 until the connection ends or has been idle for a moment. `first` are the bytes that have
/// already been read from the transport. `idle_for` is the time since the last request or the TLS handshake;
/// `None` if there was neither.
pub(crate) async fn serve_http1(
    context: ConnectionContext,
    transport: Transport,
    first: Vec<u8>,
    idle_for: Option<Duration>,
) -> Result<ServeOutcome, BoxError> {
    let limits = context.limits();
    let state = Arc::<ConnectionState>::default();
    let worker = &context.worker;
    let mut stream = ClientStream::new(
        transport,
        first,
        Arc::clone(&state),
        limits.write,
        worker.deadlines(),
    );
    let scheme = stream.scheme();
    let framing_fault = stream.scan();
    let service = service(&context, scheme, false, Arc::clone(&state), framing_fault);
    let mut http = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let kept = KEEP_BUFFERS.min(limits.idle);
    let mut limit = ReadLimit::new(&state, &context.deadline, limits, kept);
    // Its buffers were released too early the last time, or this is its first request over TLS.
    let is_in_use = idle_for.is_some_and(|idle| idle <= KEEP_BUFFERS);
    let mut idle = worker.idle_count();
    let mut driver = Driver::new(worker, &context.deadline);
    let (mut has_waited, mut was_released) = (false, Duration::ZERO);
    let ended = poll_fn(|cx| {
        let shut_down = http1::UpgradeableConnection::graceful_shutdown;
        if let Poll::Ready(ended) = driver.poll(cx, Pin::new(&mut http), shut_down) {
            return Poll::Ready(ended.map_err(BoxError::from));
        }
        let has_passed = limit.check();
        let is_idle = limit.expected == Expected::Request;
        if idle.set(is_idle) {
            has_waited = false;
        }
        if is_idle && (has_passed || (!is_in_use && idle.is_above_limit())) {
            if !has_passed && !has_waited {
                // A busy worker looks for requests that have arrived meanwhile before it polls this again.
                has_waited = true;
                let _ = pin!(tokio::task::yield_now()).poll(cx);
                return Poll::Pending;
            }
            was_released = if has_passed { kept } else { Duration::ZERO };
            return release(&state, cx, &mut http).map_err(BoxError::from);
        }
        if has_passed {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        }
        Poll::Pending
    })
    .await;
    context.deadline.clear();
    let Some(parts) = http.into_parts() else {
        // The connection was upgraded.
        return Ok(ServeOutcome::Closed);
    };
    let stream = parts.io.into_inner();
    if state.must_reset() {
        stream.reset();
    }
    ended?;
    if !state.is_released() {
        return Ok(ServeOutcome::Closed);
    }
    if !parts.read_buf.is_empty() {
        return Err("unread bytes of a request remain".into());
    }
    Ok(ServeOutcome::Idle(stream.into_transport(), was_released))
}

/// Shuts down hyper's part of an idle connection, and leaves the socket open.
fn release<S>(
    state: &ConnectionState,
    cx: &mut Context<'_>,
    http: &mut http1::UpgradeableConnection<TokioIo<ClientStream>, S>,
) -> Poll<hyper::Result<()>>
where
    S: HttpService<Incoming, ResBody = ResponseBody, Error = Infallible>,
{
    state.set_released(true);
    // hyper ends an idle connection at once.
    Pin::new(&mut *http).graceful_shutdown();
    let ended = Pin::new(http).poll(cx);
    if ended.is_pending() {
        state.set_released(false);
    }
    ended
}

/// Serves HTTP/2 until the connection ends. `first` are the bytes that have already been read from the transport.
pub(crate) async fn serve_http2(
    context: ConnectionContext,
    transport: Transport,
    first: Vec<u8>,
) -> Result<ServeOutcome, BoxError> {
    let limits = context.limits();
    let state = Arc::<ConnectionState>::default();
    let worker = &context.worker;
    let stream = ClientStream::new(
        transport,
        first,
        Arc::clone(&state),
        limits.write,
        worker.deadlines(),
    );
    let framing_fault = FramingFault::default();
    let scheme = stream.scheme();
    let service = service(&context, scheme, true, Arc::clone(&state), framing_fault);
    let http = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .enable_connect_protocol()
        .serve_connection(TokioIo::new(stream), service);
    let mut http = pin!(http);
    let mut limit = ReadLimit::new(&state, &context.deadline, limits, limits.idle);
    let mut driver = Driver::new(worker, &context.deadline);
    poll_fn(|cx| {
        let shut_down = http2::Connection::graceful_shutdown;
        if let Poll::Ready(ended) = driver.poll(cx, http.as_mut(), shut_down) {
            return Poll::Ready(ended.map_err(BoxError::from));
        }
        if !limit.check() {
            return Poll::Pending;
        }
        if driver.is_shutting_down {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut).into()));
        }
        // This sends a GOAWAY frame. The client has some time to acknowledge it.
        context.deadline.set(limits.head);
        let ended = driver.shut_down(cx, http.as_mut(), shut_down);
        ended.map_err(BoxError::from)
    })
    .await?;
    Ok(ServeOutcome::Closed)
}

/// Answers the requests of a connection.
fn service(
    context: &ConnectionContext,
    scheme: &'static str,
    is_http2: bool,
    state: Arc<ConnectionState>,
    framing_fault: FramingFault,
) -> impl Service<
    Request<Incoming>,
    Response = Response<ResponseBody>,
    Error = Infallible,
    Future: Send + 'static,
> + Send
+ 'static {
    let server = Arc::clone(&context.server);
    let trusted = &server.config().trusted_proxies;
    let forwarding = Forwarding::new(context.peer.ip(), trusted, scheme);
    let worker = Arc::clone(&context.worker);
    let client = Client::new(
        worker,
        context.peer,
        forwarding,
        is_http2,
        state,
        framing_fault,
    );
    let client = Arc::new(client);
    service_fn(move |request: Request<Incoming>| {
        let (server, client) = (Arc::clone(&server), Arc::clone(&client));
        async move { Ok(server.respond(request, client).await) }
    })
}

/// Polls hyper's part of a connection.
struct Driver<'a> {
    worker: &'a Worker,
    deadline: &'a Deadline,
    is_shutting_down: bool,
}

impl<'a> Driver<'a> {
    fn new(worker: &'a Worker, deadline: &'a Deadline) -> Self {
        Self {
            worker,
            deadline,
            is_shutting_down: false,
        }
    }

    /// Shuts the connection down gracefully when the worker drains, and ends when the worker closes.
    fn poll<C: Future<Output = hyper::Result<()>>>(
        &mut self,
        cx: &mut Context<'_>,
        mut http: Pin<&mut C>,
        shut_down: impl Fn(Pin<&mut C>),
    ) -> Poll<hyper::Result<()>> {
        // The worker wakes all connections when it drains and when it closes.
        self.deadline.register(cx.waker());
        if self.worker.is_closing() {
            return Poll::Ready(Ok(()));
        }
        // hyper is polled even if the worker drains, so that a request that has arrived already gets a
        // response.
        let polled = http.as_mut().poll(cx);
        if polled.is_pending() && self.worker.is_draining() && !self.is_shutting_down {
            return self.shut_down(cx, http, shut_down);
        }
        polled
    }

    fn shut_down<C: Future<Output = hyper::Result<()>>>(
        &mut self,
        cx: &mut Context<'_>,
        mut http: Pin<&mut C>,
        shut_down: impl Fn(Pin<&mut C>),
    ) -> Poll<hyper::Result<()>> {
        self.is_shutting_down = true;
        shut_down(http.as_mut());
        http.poll(cx)
    }
}

/// The limit on the time until a client sends what is expected of it.
struct ReadLimit<'a> {
    state: &'a ConnectionState,
    deadline: &'a Deadline,
    limits: ClientLimits,
    /// The limit on the time until the next request.
    request: Duration,
    expected: Expected,
    /// The value of [`ConnectionState::activity`] when the limit was set.
    activity: u32,
}

impl<'a> ReadLimit<'a> {
    fn new(
        state: &'a ConnectionState,
        deadline: &'a Deadline,
        limits: ClientLimits,
        request: Duration,
    ) -> Self {
        Self {
            state,
            deadline,
            limits,
            request,
            expected: Expected::Nothing,
            activity: 0,
        }
    }

    /// Sets or clears the limit after the connection was polled. Returns whether it has passed.
    fn check(&mut self) -> bool {
        let (expected, activity) = (self.state.expected(), self.state.activity());
        if expected != self.expected || activity != self.activity {
            (self.expected, self.activity) = (expected, activity);
            match expected {
                Expected::Nothing => self.deadline.clear(),
                Expected::Request => self.deadline.set(self.request),
                Expected::Head => self.deadline.set(self.limits.head),
                Expected::Rest => self.deadline.set(self.limits.idle),
            }
        }
        self.deadline.has_passed()
    }
}
