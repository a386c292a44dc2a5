//! Connections to the instances, and what can go wrong on them.

use std::error::Error as StdError;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::{Client, Error as ClientError, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tower::ServiceExt;
use tower::util::MapResponse;

use crate::request_body::Attempt;
use crate::upstream_io::Attentive;

/// How long a connection is kept for the next request. Many servers hang up on an idle one after
/// 5 s; to be earlier than they keeps a request from going out just as they do.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Makes plain connections.
type Connector =
    MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> Attentive<TokioIo<TcpStream>>>;

/// The keep-alive pools of all instances.
pub(crate) struct Upstream {
    http: Client<Connector, Attempt>,
    /// Made when the first `https` instance is called: reading the machine's certificates takes
    /// time, and may fail where nobody needs them.
    https: OnceLock<Result<Client<HttpsConnector<Connector>, Attempt>, String>>,
    connect_timeout: Duration,
}

impl Upstream {
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        let http = pool().build(connector(connect_timeout));
        Self {
            http,
            https: OnceLock::new(),
            connect_timeout,
        }
    }

    /// Sends a request to the instance that its URI names.
    pub(crate) async fn send(
        &self,
        request: Request<Attempt>,
    ) -> Result<Response<Incoming>, Failure> {
        let answer = match request.uri().scheme_str() {
            Some("http") => self.http.request(request),
            Some("https") => match self.https.get_or_init(|| https(self.connect_timeout)) {
                Ok(client) => client.request(request),
                Err(reason) => return Err(Failure::unsent(format!("no TLS: {reason}"))),
            },
            other => {
                let scheme = other.unwrap_or_default();
                return Err(Failure::unsent(format!(
                    "the scheme {scheme:?} is not http or https"
                )));
            }
        };
        answer.await.map_err(|error| Failure::from_client(&error))
    }
}

fn pool() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        // Where a pooled connection closes before a byte of the request is written, the library
        // itself takes another one: nothing was sent, so that is always safe.
        .retry_canceled_requests(true)
        .set_host(false);
    builder
}

fn connector(connect_timeout: Duration) -> Connector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(connect_timeout));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(60)));
    connector.enforce_http(false);
    connector.map_response(Attentive::new)
}

fn https(connect_timeout: Duration) -> Result<Client<HttpsConnector<Connector>, Attempt>, String> {
    let provider = rustls::crypto::ring::default_provider();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(provider)
        .map_err(|error| error.to_string())?
        .https_only()
        .enable_http1()
        .wrap_connector(connector(connect_timeout));
    Ok(pool().build(connector))
}

/// Why an attempt gave no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) cause: String,
}

/// What an attempt failed at; it decides whether another is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// There is no connection, so nothing of the request was sent.
    Connect,
    /// There was no connection within the time allowed.
    ConnectTimeout,
    /// This instance can't be called at all, now or later.
    Unsent,
    /// The connection broke after something was sent and before a response came.
    Broken,
    /// What came back is no HTTP response.
    BadResponse,
    /// The response did not begin in time.
    ResponseTimeout,
    /// The client stopped sending its body.
    ClientStalled,
    /// The client broke its body off, or framed it wrongly.
    ClientBody,
}

impl FailureKind {
    /// Whether the instance has certainly seen nothing of the request.
    pub(crate) fn is_unsent(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout | Self::Unsent)
    }

    /// The word for it in a log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unsent => "not_callable",
            Self::Broken => "connection_broken",
            Self::BadResponse => "bad_response",
            Self::ResponseTimeout => "response_timeout",
            Self::ClientStalled => "client_stalled",
            Self::ClientBody => "client_body",
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            cause: cause.into(),
        }
    }

    pub(crate) fn unsent(cause: impl Into<String>) -> Self {
        Self::new(FailureKind::Unsent, cause)
    }

    fn from_client(error: &ClientError) -> Self {
        let kind = if error.is_connect() {
            let timed_out = causes(error)
                .filter_map(|cause| cause.downcast_ref::<io::Error>())
                .any(|io| io.kind() == io::ErrorKind::TimedOut);
            if timed_out {
                FailureKind::ConnectTimeout
            } else {
                FailureKind::Connect
            }
        } else {
            match causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>()) {
                Some(hyper) if hyper.is_parse() => FailureKind::BadResponse,
                // The library hands such a request back unwritten.
                Some(hyper) if hyper.is_canceled() => FailureKind::Connect,
                _ => FailureKind::Broken,
            }
        };
        let cause = causes(error)
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string);
        Self::new(kind, cause)
    }
}

/// What led to an error, the innermost last.
fn causes(error: &ClientError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
