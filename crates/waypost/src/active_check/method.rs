//! The methods of active checks: TCP, HTTP or a function.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::net::TcpStream;
use waypost_core::{Host, Instance};

use crate::balance::panic_message;

#[cfg(feature = "http-check")]
type HttpClient = hyper_util::client::legacy::Client<
    hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>,
    http_body_util::Empty<hyper::body::Bytes>,
>;

type Function = dyn Fn(Arc<Instance>) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

/// How a check tests an endpoint.
#[derive(Clone)]
pub(super) enum CheckMethod {
    Tcp,
    #[cfg(feature = "http-check")]
    Http {
        client: Arc<HttpClient>,
        path: Arc<str>,
    },
    Custom(Arc<Function>),
}

impl CheckMethod {
    #[cfg(feature = "http-check")]
    pub(super) fn http(path: &str) -> Result<Self, waypost_core::Error> {
        if !path.starts_with('/') {
            let why = "it must start with a slash, such as /health";
            return Err(waypost_core::Invalid::new("path of a check", path, why).into());
        }
        Ok(Self::Http {
            client: Arc::new(client()?),
            path: path.into(),
        })
    }

    pub(super) fn custom<F, R>(check: F) -> Self
    where
        F: Fn(Arc<Instance>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self::Custom(Arc::new(move |instance| check(instance).boxed()))
    }

    pub(super) async fn check(&self, instance: &Arc<Instance>, port: u16) -> Result<(), String> {
        match self {
            Self::Tcp => {
                let connected = match instance.host() {
                    Host::Ip(ip) => TcpStream::connect((*ip, port)).await,
                    Host::Name(name) => TcpStream::connect((&**name, port)).await,
                };
                connected.map(drop).map_err(|error| error.to_string())
            }
            #[cfg(feature = "http-check")]
            Self::Http { client, path } => {
                let scheme = match instance.scheme() {
                    "https" => "https",
                    _ => "http",
                };
                let url = format!("{scheme}://{}:{port}{path}", instance.host());
                let url = url.parse().map_err(|_| format!("{url:?} is not a URL"))?;
                match client.get(url).await {
                    Ok(response) => result_of(response.status()),
                    Err(error) => Err(innermost(&error)),
                }
            }
            Self::Custom(check) => {
                // A panic in the application's function is a failed check; the loop continues.
                let check = async { check(Arc::clone(instance)).await };
                match AssertUnwindSafe(check).catch_unwind().await {
                    Ok(result) => result,
                    Err(panic) => Err(format!("the check panicked: {}", panic_message(&*panic))),
                }
            }
        }
    }
}

#[cfg(feature = "http-check")]
fn result_of(status: http::StatusCode) -> Result<(), String> {
    if status.is_success() || status == http::StatusCode::TOO_MANY_REQUESTS {
        Ok(())
    } else {
        Err(format!("status {status}"))
    }
}

/// The innermost cause, which names the actual problem ("connection refused").
#[cfg(feature = "http-check")]
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(feature = "http-check")]
fn client() -> Result<HttpClient, waypost_core::ConfigError> {
    use hyper_util::client::legacy::Client;
    use hyper_util::rt::TokioExecutor;
    use rustls_platform_verifier::Verifier;

    let unusable = |cause: &dyn fmt::Display| waypost_core::ConfigError::new("HTTP check", cause);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier::new(Arc::clone(&provider)).map_err(|cause| unusable(&cause))?;
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|cause| unusable(&cause))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let mut builder = Client::builder(TokioExecutor::new());
    // A pooled connection would not show whether a new one can be made.
    builder.pool_max_idle_per_host(0);
    Ok(builder.build(connector))
}

impl fmt::Debug for CheckMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            #[cfg(feature = "http-check")]
            Self::Http { path, .. } => write!(f, "http:{path}"),
            Self::Custom(_) => f.write_str("custom"),
        }
    }
}
