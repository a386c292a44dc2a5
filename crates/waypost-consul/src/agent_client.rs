//! An HTTP client for one agent.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;
use waypost_core::{ConfigError, Error, Host, ProviderError, ProviderErrorKind};

use crate::acl::AclRule;
use crate::address::Address;
use crate::tls::TlsOptions;
use crate::token::Token;

/// Sends requests to one agent, and converts failures to [`ProviderError`]s.
pub(super) struct AgentClient {
    client: reqwest::Client,
    address: Address,
    description: Arc<str>,
    token: Arc<Token>,
    /// The parameters `ns` and `partition`, if set. They are part of every request.
    tenancy: Vec<(&'static str, String)>,
    /// Limits concurrent writes, so that thousands of registrations at once share a few connections.
    writes: Semaphore,
}

/// The time limit for establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The time limit for a request that doesn't wait for a change.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The limit for the body of a response. 10,000 instances with their checks are 26 MB.
const MAX_BODY: usize = 256 << 20;

/// The number of concurrent writes. More don't make an agent faster.
const MAX_WRITES: usize = 16;

/// A response with status 2xx.
pub(super) struct Response {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl AgentClient {
    pub(super) fn new(
        address: Address,
        token: Arc<Token>,
        tls: &TlsOptions,
        tenancy: Vec<(&'static str, String)>,
    ) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A peer that disappears without closing the connection is detected within 30 s.
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_keepalive_interval(Duration::from_secs(5))
            .tcp_keepalive_retries(3)
            // Agents are reached directly, not through the proxy in HTTP_PROXY.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls.config()?);
        #[cfg(unix)]
        if let Some(path) = address.socket() {
            builder = builder.unix_socket(path);
        }
        #[cfg(not(unix))]
        if address.socket().is_some() {
            let problem = "this system has no Unix sockets; use http:// or https://";
            return Err(ConfigError::new(address.to_string(), problem).into());
        }
        let client = builder
            .build()
            .map_err(|cause| ConfigError::new("HTTP client", cause))?;
        Ok(Self {
            client,
            description: format!("consul at {address}").into(),
            address,
            token,
            tenancy,
            writes: Semaphore::new(MAX_WRITES),
        })
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
        let mut request = self.request(Method::GET, path).query(params);
        if let Some((index, wait)) = block {
            // The agent adds up to a sixteenth to the wait, as jitter.
            let timeout = wait + wait / 16 + REQUEST_TIMEOUT;
            let params = [
                ("index", index.to_string()),
                ("wait", format!("{}ms", wait.as_millis())),
            ];
            request = request.query(&params).timeout(timeout);
        }
        self.send(request, rule).await
    }

    /// Writes to a path. `rule` is part of the error if the agent refuses the request.
    pub(super) async fn put(
        &self,
        path: &str,
        body: &Value,
        rule: &AclRule,
    ) -> Result<(), ProviderError> {
        let request = self.request(Method::PUT, path).json(body);
        // The semaphore is never closed, so this can't fail.
        let _permit = self.writes.acquire().await;
        self.send(request, Some(rule)).await.map(drop)
    }

    /// Sends a query that needs a body.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Response, ProviderError> {
        let request = self.request(Method::POST, path).json(body);
        self.send(request, None).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.address.base_url());
        let mut request = self.client.request(method, url).timeout(REQUEST_TIMEOUT);
        if let Some(token) = self.token.current() {
            request = request.header("x-consul-token", token);
        }
        if !self.tenancy.is_empty() {
            request = request.query(&self.tenancy);
        }
        request
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        rule: Option<&AclRule>,
    ) -> Result<Response, ProviderError> {
        let (client, request) = request.build_split();
        let request = request.map_err(|cause| self.transport_error(cause, REQUEST_TIMEOUT))?;
        let timeout = request.timeout().copied().unwrap_or(REQUEST_TIMEOUT);
        let mut response = (client.execute(request).await)
            .map_err(|cause| self.transport_error(cause, timeout))?;

        let mut body = Vec::new();
        while let Some(chunk) =
            (response.chunk().await).map_err(|cause| self.transport_error(cause, timeout))?
        {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(self.error(
                    ProviderErrorKind::InvalidResponse,
                    format!("the response is longer than {MAX_BODY} bytes"),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        if response.status().is_success() {
            return Ok(Response {
                headers: std::mem::take(response.headers_mut()),
                body,
            });
        }
        let text = String::from_utf8_lossy(&body);
        Err(self.status_error(response.status(), &text, rule))
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

    fn transport_error(&self, cause: reqwest::Error, timeout: Duration) -> ProviderError {
        let (kind, message) = if cause.is_timeout() && !cause.is_connect() {
            let after = timeout;
            (ProviderErrorKind::TimedOut { after }, "no response in time")
        } else if cause.is_timeout() {
            let after = CONNECT_TIMEOUT;
            (
                ProviderErrorKind::TimedOut { after },
                "no connection in time",
            )
        } else if cause.is_connect() {
            (ProviderErrorKind::Unreachable, "can't connect")
        } else {
            (ProviderErrorKind::Unreachable, "connection lost")
        };
        // The URL repeats the description.
        self.error(kind, message).with_source(cause.without_url())
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
            status if status.is_client_error() => self.error(ProviderErrorKind::Rejected, message),
            _ => self.error(ProviderErrorKind::Unreachable, message),
        }
    }
}

/// How to fix a refusal.
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
