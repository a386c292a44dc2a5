use std::fmt;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::sync::Semaphore;
use waypost_core::{ConfigError, Error, Host, ProviderError, ProviderErrorKind};

use super::address::Address;
use super::permission::Need;
use super::tls::Tls;
use super::token::Token;

/// How one agent is spoken to, and what its failures mean.
pub(super) struct Http {
    client: reqwest::Client,
    address: Address,
    description: Arc<str>,
    token: Arc<Token>,
    /// `ns` and `partition`, where they are set: they go with every request.
    scope: Vec<(&'static str, String)>,
    /// Thousands of instances that register or report at once share these connections.
    writing: Semaphore,
}

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a request may take that waits for nothing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What no sensible answer exceeds: 10,000 instances with their checks are 26 MB.
const MAX_BODY: usize = 256 << 20;

/// How many writes are under way at a time. More makes an agent no faster.
const WRITES: usize = 16;

/// An answer of status 200.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn new(
        address: Address,
        token: Arc<Token>,
        tls: &Tls,
        scope: Vec<(&'static str, String)>,
    ) -> Result<Self, Error> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A peer that vanished without a word is noticed within half a minute.
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_keepalive_interval(Duration::from_secs(5))
            .tcp_keepalive_retries(3)
            // An agent is never behind the proxy that HTTP_PROXY names.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls.config()?);
        #[cfg(unix)]
        if let Some(path) = address.socket() {
            builder = builder.unix_socket(path);
        }
        #[cfg(not(unix))]
        if address.socket().is_some() {
            let why = "this system has no Unix sockets; use http:// or https://";
            return Err(ConfigError::new(address.to_string(), why).into());
        }
        let client = builder
            .build()
            .map_err(|cause| ConfigError::new("HTTP set-up", cause))?;
        Ok(Self {
            client,
            description: format!("consul at {address}").into(),
            address,
            token,
            scope,
            writing: Semaphore::new(WRITES),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// The address from which this machine reaches the agent. Nothing is sent: connecting a UDP
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
        let any: IpAddr = match target {
            std::net::SocketAddr::V4(_) => [0; 4].into(),
            std::net::SocketAddr::V6(_) => [0_u16; 8].into(),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    }

    /// Reads a path. With an index it is a blocking query, held by the agent for up to `wait`.
    pub(super) async fn read(
        &self,
        path: &str,
        query: &[(String, String)],
        block: Option<(u64, Duration)>,
        need: Option<&Need>,
    ) -> Result<Reply, ProviderError> {
        let mut request = self.request(Method::GET, path).query(query);
        if let Some((index, wait)) = block {
            // The agent adds up to a sixteenth to the wait; only after that is silence a fault.
            let timeout = wait + wait / 16 + REQUEST_TIMEOUT;
            let query = [
                ("index", index.to_string()),
                ("wait", format!("{}ms", wait.as_millis())),
            ];
            request = request.query(&query).timeout(timeout);
        }
        self.send(request, need).await
    }

    /// Writes to a path.
    pub(super) async fn write(
        &self,
        path: &str,
        body: &Value,
        need: Option<&Need>,
    ) -> Result<(), ProviderError> {
        let request = self.request(Method::PUT, path).json(body);
        // Never closed, so this only waits for its turn.
        let _turn = self.writing.acquire().await;
        self.send(request, need).await.map(drop)
    }

    /// Asks a question that needs a body.
    pub(super) async fn ask(&self, path: &str, body: &Value) -> Result<Reply, ProviderError> {
        let request = self.request(Method::POST, path).json(body);
        self.send(request, None).await
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.address.base());
        let mut request = self.client.request(method, url).timeout(REQUEST_TIMEOUT);
        if let Some(token) = self.token.current() {
            request = request.header("x-consul-token", token);
        }
        if !self.scope.is_empty() {
            request = request.query(&self.scope);
        }
        request
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        need: Option<&Need>,
    ) -> Result<Reply, ProviderError> {
        let (client, request) = request.build_split();
        let request = request.map_err(|cause| self.failed(cause, REQUEST_TIMEOUT))?;
        let within = request.timeout().copied().unwrap_or(REQUEST_TIMEOUT);
        let mut response =
            (client.execute(request).await).map_err(|cause| self.failed(cause, within))?;

        let mut body = Vec::new();
        while let Some(chunk) =
            (response.chunk().await).map_err(|cause| self.failed(cause, within))?
        {
            if body.len() + chunk.len() > MAX_BODY {
                return Err(self.error(
                    ProviderErrorKind::InvalidResponse,
                    format!("the answer is longer than {MAX_BODY} bytes"),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        if response.status().is_success() {
            return Ok(Reply {
                headers: std::mem::take(response.headers_mut()),
                body,
            });
        }
        let text = String::from_utf8_lossy(&body);
        Err(self.refused(response.status(), &text, need))
    }

    pub(super) fn error(
        &self,
        kind: ProviderErrorKind,
        message: impl Into<Arc<str>>,
    ) -> ProviderError {
        ProviderError::new(Arc::clone(&self.description), kind, message)
    }

    fn failed(&self, cause: reqwest::Error, within: Duration) -> ProviderError {
        let (kind, message) = if cause.is_timeout() && !cause.is_connect() {
            (
                ProviderErrorKind::TimedOut { after: within },
                "no answer in time",
            )
        } else if cause.is_timeout() {
            let after = CONNECT_TIMEOUT;
            (
                ProviderErrorKind::TimedOut { after },
                "no connection in time",
            )
        } else if cause.is_connect() {
            (ProviderErrorKind::Unreachable, "no connection")
        } else {
            (ProviderErrorKind::Unreachable, "the connection broke")
        };
        // Without its URL, which repeats what the description says.
        self.error(kind, message).with_source(cause.without_url())
    }

    /// What a status other than 2xx means (Consul's HTTP API, and RFC 9110 for what proxies add).
    fn refused(&self, status: StatusCode, body: &str, need: Option<&Need>) -> ProviderError {
        let text: String = body.trim().chars().take(500).collect();
        let message = format!("{}: {text}", status.as_u16());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let kind = ProviderErrorKind::NotAuthorised;
                self.error(kind, format!("{message}{}", remedy(&text, need)))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                self.error(ProviderErrorKind::Unreachable, message)
            }
            status if status.is_client_error() => self.error(ProviderErrorKind::Rejected, message),
            _ => self.error(ProviderErrorKind::Unreachable, message),
        }
    }
}

/// What would help against a refusal.
fn remedy(text: &str, need: Option<&Need>) -> String {
    if text.contains("ACL not found") {
        return "; Consul doesn't know the token: it is mistyped, revoked, expired, or not yet \
                known to this server"
            .into();
    }
    match need {
        Some(need) => format!("; the token's policy must say: {need}"),
        None => "; set CONSUL_TOKEN to a token whose policy allows it".into(),
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("address", &self.address.to_string())
            .field("token", &self.token)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}
