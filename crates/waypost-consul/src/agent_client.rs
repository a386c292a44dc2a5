//! An HTTP client for one agent.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use waypost_core::{Error, Host, ProviderError, ProviderErrorKind};

use crate::acl::AclRule;
use crate::address::Address;
use crate::escape::escape;
use crate::http_client::{CONNECT_TIMEOUT, Failure, HttpClient};
use crate::registered_instances::RegisteredInstances;
use crate::resolver::AgentResolver;
use crate::tls::TlsOptions;
use crate::token::Token;

/// Sends requests to one agent, and converts failures to [`ProviderError`]s.
pub(super) struct AgentClient {
    http: HttpClient,
    resolver: AgentResolver,
    tls: ClientConfig,
    address: Address,
    description: Arc<str>,
    token: Arc<Token>,
    /// The parameters `ns` and `partition`, if set. They are part of every request.
    tenancy: Vec<(&'static str, String)>,
    /// Limits concurrent requests that don't wait for a change, so that thousands of services or
    /// registrations share a few connections.
    requests: Semaphore,
    pub(super) registered_instances: RegisteredInstances,
}

/// The time limit for a request that doesn't wait for a change.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum number of concurrent requests that don't wait for a change. An agent isn't faster with
/// more.
const MAX_REQUESTS: usize = 32;

/// The message of an error if the connection ended after the request was sent.
const CONNECTION_LOST: &str = "connection lost";

/// A response with status 2xx.
pub(super) struct Response {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl AgentClient {
    pub(super) fn new(
        address: Address,
        resolver: AgentResolver,
        token: Arc<Token>,
        tls: &TlsOptions,
        tenancy: Vec<(&'static str, String)>,
    ) -> Result<Self, Error> {
        #[cfg(not(unix))]
        if address.socket().is_some() {
            let problem = "this system has no Unix sockets; use http:// or https://";
            return Err(waypost_core::ConfigError::new(address.to_string(), problem).into());
        }
        let tls = tls.config()?;
        Ok(Self {
            http: HttpClient::new(&address, resolver.clone(), tls.clone()),
            resolver,
            tls,
            description: format!("consul at {address}").into(),
            address,
            token,
            tenancy,
            requests: Semaphore::new(MAX_REQUESTS),
            registered_instances: RegisteredInstances::default(),
        })
    }

    /// A client of the agent at `address`, one of the addresses of the DNS name.
    pub(super) fn at(&self, address: IpAddr) -> Self {
        let resolver = AgentResolver::fixed(address);
        Self {
            http: HttpClient::new(&self.address, resolver.clone(), self.tls.clone()),
            resolver,
            tls: self.tls.clone(),
            address: self.address.clone(),
            description: format!("{} ({address})", self.description).into(),
            token: Arc::clone(&self.token),
            tenancy: self.tenancy.clone(),
            requests: Semaphore::new(MAX_REQUESTS),
            registered_instances: RegisteredInstances::default(),
        }
    }

    /// The address that answered last, if the agent's address is a DNS name.
    pub(super) fn answering_address(&self) -> Option<IpAddr> {
        self.resolver.chosen()
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The address from which this machine reaches the agent. No packet is sent: connecting a UDP
    /// socket only makes the system choose a route.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let (host, port) = match &self.address {
            Address::Tcp { host, port, .. } => (host, *port),
            Address::Unix(_) => return Some(Ipv4Addr::LOCALHOST.into()),
        };
        let target = match host {
            Host::Ip(ip) => (*ip, port).into(),
            Host::Name(name) => (&**name, port).to_socket_addrs().ok()?.next()?,
        };
        let unspecified: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((unspecified, 0)).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    /// Reads a path. With an index and a wait in `block` this is a blocking query, which the agent may
    /// hold for that long. `rule` is part of the error if the agent refuses the request.
    pub(super) async fn get(
        &self,
        path: &str,
        params: &[(String, String)],
        block: Option<(u64, Duration)>,
        rule: Option<&AclRule>,
    ) -> Result<Response, ProviderError> {
        let mut params = params.to_vec();
        let Some((index, wait)) = block else {
            let request = self.request(Method::GET, path, &params, None);
            return self.send_limited(request, rule).await;
        };
        params.push(("index".to_owned(), index.to_string()));
        params.push(("wait".to_owned(), format!("{}ms", wait.as_millis())));
        // The agent adds up to a sixteenth to the wait, as jitter.
        let timeout = wait + wait / 16 + REQUEST_TIMEOUT;
        let request = self.request(Method::GET, path, &params, None);
        self.send(request, timeout, rule).await
    }

    /// Writes to a path. `rule` is part of the error if the agent refuses the request.
    pub(super) async fn put(
        &self,
        path: &str,
        body: &Value,
        rule: &AclRule,
    ) -> Result<(), ProviderError> {
        let request = self.request(Method::PUT, path, &[], Some(body));
        self.send_limited(request, Some(rule)).await.map(drop)
    }

    /// Sends a query that needs a body.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Response, ProviderError> {
        let request = self.request(Method::POST, path, &[], Some(body));
        self.send_limited(request, None).await
    }

    /// Builds the request. Fails if its parts are invalid.
    fn request(
        &self,
        method: Method,
        path: &str,
        params: &[(String, String)],
        body: Option<&Value>,
    ) -> http::Result<Request<Full<Bytes>>> {
        let mut uri = format!("{}{path}", self.address.base_url());
        let tenancy = self.tenancy.iter().map(|(key, value)| (*key, &**value));
        let params = params.iter().map(|(key, value)| (&**key, &**value));
        for (key, value) in tenancy.chain(params) {
            uri.push(if uri.contains('?') { '&' } else { '?' });
            uri.push_str(&format!("{}={}", escape(key), escape(value)));
        }
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(token) = self.token.current() {
            request = request.header("x-consul-token", token);
        }
        match body {
            None => request.body(Full::default()),
            Some(body) => (request.header(CONTENT_TYPE, "application/json"))
                .body(Full::from(body.to_string())),
        }
    }

    /// Sends a request that doesn't wait for a change, as soon as fewer than [`MAX_REQUESTS`] of them
    /// are in flight.
    async fn send_limited(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
        rule: Option<&AclRule>,
    ) -> Result<Response, ProviderError> {
        // The semaphore is never closed, so this can't fail.
        let _permit = self.requests.acquire().await;
        self.send(request, REQUEST_TIMEOUT, rule).await
    }

    async fn send(
        &self,
        request: http::Result<Request<Full<Bytes>>>,
        after: Duration,
        rule: Option<&AclRule>,
    ) -> Result<Response, ProviderError> {
        let request = request.map_err(|cause| {
            let message = "the request can't be sent";
            (self.error(ProviderErrorKind::Rejected, message)).with_source(cause)
        })?;
        let Ok(received) = timeout(after, self.http.send(request)).await else {
            let kind = ProviderErrorKind::TimedOut { after };
            return Err(self.error(kind, "no response in time"));
        };
        let received = received.map_err(|failure| self.transport_error(failure))?;
        if received.status.is_success() {
            return Ok(Response {
                headers: received.headers,
                body: received.body,
            });
        }
        let text = String::from_utf8_lossy(&received.body);
        Err(self.status_error(received.status, &text, rule))
    }

    /// An error of this agent.
    pub(super) fn error(
        &self,
        kind: ProviderErrorKind,
        message: impl Into<Arc<str>>,
    ) -> ProviderError {
        ProviderError::new(Arc::clone(&self.description), kind, message)
    }

    /// The error of a request to a path that every agent has. If the status says that the path doesn't
    /// exist, the server is not a Consul agent.
    pub(super) fn error_of_known_path(&self, error: ProviderError) -> ProviderError {
        let status = error.message().split(':').next().unwrap_or_default();
        if error.kind() != ProviderErrorKind::Rejected || !matches!(status, "404" | "405") {
            return error;
        }
        let message = format!("a program that is not a Consul agent responds with status {status}");
        self.error(ProviderErrorKind::InvalidResponse, message)
    }

    /// Whether a request failed because its connection ended after it was sent.
    pub(super) fn is_connection_loss(error: &ProviderError) -> bool {
        error.message() == CONNECTION_LOST
    }

    fn transport_error(&self, failure: Failure) -> ProviderError {
        use ProviderErrorKind::{InvalidResponse, TimedOut, Unreachable};
        match failure {
            Failure::Connect(cause) => {
                (self.error(Unreachable, "can't connect")).with_source(cause)
            }
            Failure::ConnectTimeout => {
                let after = CONNECT_TIMEOUT;
                self.error(TimedOut { after }, "no connection in time")
            }
            Failure::Lost(cause) => (self.error(Unreachable, CONNECTION_LOST)).with_source(cause),
            Failure::TooLong(limit) => {
                let message = format!("the response is longer than {limit} bytes");
                self.error(InvalidResponse, message)
            }
        }
    }

    /// The error for a status other than 2xx (Consul's HTTP API; RFC 9110 for those of proxies).
    fn status_error(
        &self,
        status: StatusCode,
        body: &str,
        rule: Option<&AclRule>,
    ) -> ProviderError {
        let text: String = body.trim().chars().take(500).collect();
        let message = format!("{}: {text}", status.as_u16());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let message = format!("{message}; {}", acl_hint(&text, rule));
                self.error(ProviderErrorKind::NotAuthorised, message)
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                self.error(ProviderErrorKind::Unreachable, message)
            }
            status if status.is_client_error() || is_refusal(&text) => {
                self.error(ProviderErrorKind::Rejected, message)
            }
            _ => self.error(ProviderErrorKind::Unreachable, message),
        }
    }
}

/// Whether the text of a 500 response says that the agent works but doesn't accept the definition. It
/// answers all other invalid definitions with 400.
fn is_refusal(text: &str) -> bool {
    text.starts_with("Scripts are disabled on this agent")
}

/// How to fix a denial.
fn acl_hint(text: &str, rule: Option<&AclRule>) -> String {
    if text.contains("ACL not found") {
        return "Consul doesn't know the token: it is mistyped, revoked, expired, or not yet \
                replicated to this server"
            .into();
    }
    match rule {
        Some(rule) => format!("the token's policy needs the rule: {rule}"),
        None => "set CONSUL_TOKEN to a token whose policy allows this".into(),
    }
}

impl fmt::Debug for AgentClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentClient")
            .field("address", &self.address.to_string())
            .field("token", &self.token)
            .field("tenancy", &self.tenancy)
            .finish_non_exhaustive()
    }
}
