//! HTTP/1.1 to one agent, over TCP, TLS or a Unix socket.

use std::error::Error as StdError;
use std::io;
#[cfg(unix)]
use std::path::Path;
#[cfg(unix)]
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{HttpConnector, HttpInfo};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::timeout;
use tower_service::Service;

use crate::address::Address;
use crate::resolver::AgentResolver;

/// The time limit for establishing a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of idle connections that are kept. The pool may open a connection that turns out not to be
/// needed, so without a limit there could be twice as many as requests.
const MAX_IDLE: usize = 32;

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// The limit for the body of a response. 10,000 instances with their checks are 26 MB.
const MAX_BODY: usize = 256 << 20;

type BoxError = Box<dyn StdError + Send + Sync>;
type TcpConnector = HttpsConnector<HttpConnector<AgentResolver>>;

/// The connections to one agent.
pub(super) struct HttpClient {
    pool: Pool,
    resolver: AgentResolver,
}

enum Pool {
    Tcp(Client<ConnectWithin<TcpConnector>, Full<Bytes>>),
    #[cfg(unix)]
    Unix(Client<ConnectWithin<SocketConnector>, Full<Bytes>>),
}

/// A complete response.
pub(super) struct Received {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no complete response.
pub(super) enum Failure {
    /// There is no connection: the agent refuses it, or its name or certificate is wrong.
    Connect(io::Error),
    /// No connection was established within [`CONNECT_TIMEOUT`].
    ConnectTimeout,
    /// The connection ended before the response was complete.
    Lost(io::Error),
    /// The body is longer than this number of bytes.
    TooLong(usize),
}

impl HttpClient {
    /// A client of the agent at this address. It has no connection yet.
    pub(super) fn new(address: &Address, resolver: AgentResolver, tls: ClientConfig) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE);
        #[cfg(unix)]
        if let Some(path) = address.socket() {
            let connector = ConnectWithin(SocketConnector(path.into()));
            let pool = Pool::Unix(builder.build(connector));
            return Self { pool, resolver };
        }
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        // A peer that disappears without closing the connection is detected within 30 s.
        tcp.set_keepalive(Some(Duration::from_secs(15)));
        tcp.set_keepalive_interval(Some(Duration::from_secs(5)));
        tcp.set_keepalive_retries(Some(3));
        // Shared among the addresses of a name, so that the next one is tried in time.
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Self {
            pool: Pool::Tcp(builder.build(ConnectWithin(connector))),
            resolver,
        }
    }

    /// Sends a request and reads the whole response.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Received, Failure> {
        let response = match &self.pool {
            Pool::Tcp(client) => client.request(request).await,
            #[cfg(unix)]
            Pool::Unix(client) => client.request(request).await,
        };
        let response = response.map_err(|cause| {
            if !cause.is_connect() {
                Failure::Lost(io::Error::other(cause))
            } else if is_timeout(&cause) {
                Failure::ConnectTimeout
            } else {
                Failure::Connect(io::Error::other(cause))
            }
        })?;
        let (head, body) = response.into_parts();
        if let Some(connection) = head.extensions.get::<HttpInfo>() {
            let address = connection.remote_addr().ip();
            if let Some(before) = self.resolver.answered(address) {
                tracing::info!(
                    %before, now = %address,
                    "another consul agent answers at this name"
                );
            }
        }
        let body = Limited::new(body, MAX_BODY).collect().await;
        let body = body.map_err(|cause| {
            if cause.is::<LengthLimitError>() {
                Failure::TooLong(MAX_BODY)
            } else {
                Failure::Lost(io::Error::other(cause))
            }
        })?;
        Ok(Received {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

/// Whether a connection failed because it took too long.
fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |&cause| cause.source());
    causes.any(|cause| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}

/// A connector that gives up after [`CONNECT_TIMEOUT`], TLS included.
#[derive(Clone)]
struct ConnectWithin<C>(C);

impl<C> Service<Uri> for ConnectWithin<C>
where
    C: Service<Uri, Error: Into<BoxError>, Future: Send + 'static>,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<C::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        async move {
            match timeout(CONNECT_TIMEOUT, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        }
        .boxed()
    }
}

/// Connects to a Unix socket, whatever the URI.
#[cfg(unix)]
#[derive(Clone)]
struct SocketConnector(Arc<Path>);

#[cfg(unix)]
impl Service<Uri> for SocketConnector {
    type Response = hyper_util::rt::TokioIo<tokio::net::UnixStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let path = Arc::clone(&self.0);
        async move {
            let stream = tokio::net::UnixStream::connect(&*path).await?;
            Ok(hyper_util::rt::TokioIo::new(stream))
        }
        .boxed()
    }
}
