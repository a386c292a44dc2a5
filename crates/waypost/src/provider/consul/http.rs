use std::{
    fmt,
    net::{IpAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderValue},
};
use rustls_platform_verifier::BuilderVerifierExt;
use serde_json::Value;

use super::settings::Address;
use crate::{
    error::{Error, ProviderError, ProviderErrorKind},
    model::Invalid,
};

/// How an agent is spoken to, and what its failures mean.
pub(super) struct Http {
    client: reqwest::Client,
    address: Address,
    description: Arc<str>,
    datacenter: Option<String>,
}

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a request may take that waits for nothing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What no sensible answer exceeds: 10,000 instances with their checks are 26 MB.
const MAX_BODY: usize = 256 << 20;

/// An answer of status 200.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl Http {
    pub(super) fn new(
        address: &Address,
        token: Option<String>,
        datacenter: Option<String>,
    ) -> Result<Self, Error> {
        let description: Arc<str> = format!("consul at {address}").into();
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let mut token = HeaderValue::from_str(token.trim()).map_err(|_| {
                Invalid::new(
                    "Consul token",
                    "(hidden)",
                    "it has characters no header may have",
                )
            })?;
            // Kept out of Debug output by those who print headers.
            token.set_sensitive(true);
            headers.insert("x-consul-token", token);
        }
        let unusable = |cause: String| Error::Invalid(Invalid::new("TLS set-up", "", cause));
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(|cause| unusable(cause.to_string()))?
        .with_no_client_auth();
        let client = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(15))
            // An agent is never behind the proxy that HTTP_PROXY names.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|cause| unusable(cause.to_string()))?;
        Ok(Self {
            client,
            address: address.clone(),
            description,
            datacenter,
        })
    }

    pub(super) fn describe(&self) -> Arc<str> {
        Arc::clone(&self.description)
    }

    /// The address from which this machine reaches the agent. Nothing is sent: connecting a UDP
    /// socket only makes the system choose a route.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let target = (self.address.host.bare(), self.address.port);
        let target = target.to_socket_addrs().ok()?.next()?;
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
        block: Option<(u64, Duration)>,
    ) -> Result<Reply, ProviderError> {
        let mut request = self.request(Method::GET, path);
        if let Some((index, wait)) = block {
            // The agent adds up to a sixteenth to the wait; only after that is silence a fault.
            let timeout = wait + wait / 16 + REQUEST_TIMEOUT;
            let query = [
                ("index", index.to_string()),
                ("wait", format!("{}s", wait.as_secs())),
            ];
            request = request.query(&query).timeout(timeout);
        }
        self.send(request).await
    }

    /// Writes to a path.
    pub(super) async fn write(&self, path: &str, body: &Value) -> Result<(), ProviderError> {
        let request = self.request(Method::PUT, path).json(body);
        self.send(request).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.address);
        let request = self.client.request(method, url).timeout(REQUEST_TIMEOUT);
        match &self.datacenter {
            Some(datacenter) => request.query(&[("dc", datacenter)]),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, ProviderError> {
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
                    ProviderErrorKind::BadAnswer,
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
        Err(self.refused(response.status(), &String::from_utf8_lossy(&body)))
    }

    pub(super) fn error(
        &self,
        kind: ProviderErrorKind,
        message: impl Into<Arc<str>>,
    ) -> ProviderError {
        ProviderError::new(self.describe(), kind, message)
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
        self.error(kind, message).because(cause.without_url())
    }

    /// What a status other than 2xx means (Consul's HTTP API, and RFC 9110 for what proxies add).
    fn refused(&self, status: StatusCode, body: &str) -> ProviderError {
        let text: String = body.trim().chars().take(500).collect();
        let message = format!("{}: {text}", status.as_u16());
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.error(
                ProviderErrorKind::NotAuthorised,
                format!("{message}; set CONSUL_TOKEN to a token whose policy allows it"),
            ),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                self.error(ProviderErrorKind::Unreachable, message)
            }
            status if status.is_client_error() => self.error(ProviderErrorKind::Rejected, message),
            _ => self.error(ProviderErrorKind::Unreachable, message),
        }
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http")
            .field("address", &self.address.to_string())
            .field("datacenter", &self.datacenter)
            .finish_non_exhaustive()
    }
}
