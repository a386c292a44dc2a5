//! The HTTP client that sends requests to instances.

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower::ServiceExt;
use tower::util::MapResponse;
use waypost::ConfigError;

use crate::attempt_error::{AttemptError, AttemptErrorKind};
use crate::config::Config;
use crate::read_after_write_error::ReadAfterWriteError;
use crate::request_body::AttemptBody;

/// How long an idle connection is kept. Many servers close idle connections after 5 s; closing them
/// first avoids sending a request on a connection that the server is about to close.
const POOL_IDLE: Duration = Duration::from_secs(4);

/// Makes TCP connections.
type Connector =
    MapResponse<HttpConnector, fn(TokioIo<TcpStream>) -> ReadAfterWriteError<TokioIo<TcpStream>>>;

/// The connection pools of all instances.
pub(crate) struct Upstream {
    http: Client<Connector, AttemptBody>,
    /// Built for the first `https` request: loading the system's certificates takes time, and may
    /// fail on systems that need none.
    https: OnceLock<Result<Client<HttpsConnector<Connector>, AttemptBody>, String>>,
    connect_timeout: Duration,
    /// Replaces the system's certificates.
    roots: Option<RootCertStore>,
}

impl Upstream {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let roots = config.ca_file.as_deref().map(read_roots).transpose()?;
        Ok(Self {
            http: pool().build(connector_within(config.connect_timeout)),
            https: OnceLock::new(),
            connect_timeout: config.connect_timeout,
            roots,
        })
    }

    /// Sends a request to the address in its URI.
    pub(crate) async fn send(
        &self,
        request: Request<AttemptBody>,
    ) -> Result<Response<Incoming>, AttemptError> {
        let response = match request.uri().scheme_str() {
            Some("http") => self.http.request(request),
            Some("https") => match self.https.get_or_init(|| self.https()) {
                Ok(client) => client.request(request),
                Err(reason) => return Err(not_callable(format!("TLS is unavailable: {reason}"))),
            },
            other => {
                let scheme = other.unwrap_or_default();
                let cause = format!("the scheme {scheme:?} is not http or https");
                return Err(not_callable(cause));
            }
        };
        response
            .await
            .map_err(|error| AttemptError::from_client(&error))
    }

    fn https(&self) -> Result<Client<HttpsConnector<Connector>, AttemptBody>, String> {
        let provider = rustls::crypto::ring::default_provider();
        let builder = HttpsConnectorBuilder::new();
        let connector = match self.roots.clone() {
            None => builder
                .with_provider_and_native_roots(provider)
                .map_err(|error| error.to_string())?,
            Some(roots) => {
                let config = ClientConfig::builder_with_provider(provider.into())
                    .with_safe_default_protocol_versions()
                    .map_err(|error| error.to_string())?
                    .with_root_certificates(roots)
                    .with_no_client_auth();
                builder.with_tls_config(config)
            }
        };
        let connector = connector
            .https_only()
            .enable_http1()
            .wrap_connector(connector_within(self.connect_timeout));
        Ok(pool().build(connector))
    }
}

fn not_callable(cause: String) -> AttemptError {
    AttemptError::new(AttemptErrorKind::NotCallable, cause)
}

fn pool() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE)
        // hyper retries by itself if a pooled connection closes before a byte of the request was
        // written. Nothing was sent then, so that is safe for any method.
        .retry_canceled_requests(true)
        .set_host(false);
    builder
}

fn connector_within(timeout: Duration) -> Connector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(timeout));
    connector.set_nodelay(true);
    connector.set_keepalive(Some(Duration::from_secs(60)));
    connector.enforce_http(false);
    connector.map_response(ReadAfterWriteError::new)
}

fn read_roots(file: &Path) -> Result<RootCertStore, ConfigError> {
    let bad = |problem: String| ConfigError::new(file.display().to_string(), problem);
    let certificates = CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|e| bad(e.to_string()))?;
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("contains no certificate in PEM format".to_owned()));
    }
    Ok(roots)
}
