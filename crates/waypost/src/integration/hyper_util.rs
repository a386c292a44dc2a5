//! hyper-util: a connector for its client, so that URIs name services.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, FutureExt};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use pin_project_lite::pin_project;
use tower::{BoxError, Service, ServiceExt};
use waypost_core::{InstanceId, ServiceAddress};

/// The crate, in the version whose types are used here.
pub use ::hyper_util;

use super::names::service_named;
use super::retry::{ATTEMPTS, pick_for};
use crate::balance::{Balancer, Lease};
use crate::client::ServiceDiscoveryClient;
use crate::outlier::Outcome;

/// A connector for hyper-util's client that connects to an instance if the host of a URI is a service.
///
/// ```no_run
/// # fn example(discovery: waypost::ServiceDiscoveryClient) {
/// use hyper_util::client::legacy::{Client, connect::HttpConnector};
/// use hyper_util::rt::TokioExecutor;
/// use waypost::integration::hyper_util::ServiceConnector;
///
/// let connector = ServiceConnector::new(discovery, HttpConnector::new());
/// let client: Client<_, String> = Client::builder(TokioExecutor::new()).build(connector);
/// // client.get("http://auth/users".parse()?)
/// # let _ = client;
/// # }
/// ```
///
/// | the URI | connects to |
/// |---|---|
/// | `http://auth/users` | an instance of `auth` with the scheme `http`; another one if it can't be reached, up to three in all |
/// | `http://auth:9000/`, `http://10.0.0.7/`, `http://localhost/` | that address, through the connector below |
/// | `https://example.com/`, if the provider doesn't know `example.com` | that address, through the connector below |
///
/// The client keeps connections open and sends several requests over each, so *connections* are balanced,
/// not requests. An open connection counts as one request in flight, and the outcome of connecting counts
/// for outlier detection; the responses don't. The host header has the service's name. A path in an
/// instance's URL is not used. If any of that matters, use the
/// [Tower layer](crate::integration::tower::BalanceLayer).
#[derive(Clone)]
pub struct ServiceConnector<C> {
    discovery: ServiceDiscoveryClient,
    inner: C,
}

impl<C> ServiceConnector<C> {
    /// Finds instances with `discovery` and connects to them with `inner`.
    pub fn new(discovery: ServiceDiscoveryClient, inner: C) -> Self {
        Self { discovery, inner }
    }
}

impl<C> fmt::Debug for ServiceConnector<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceConnector")
            .field("discovery", &self.discovery)
            .finish_non_exhaustive()
    }
}

impl<C> Service<Uri> for ServiceConnector<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Response: Send,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    type Response = ServiceConnection<C::Response>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<ServiceConnection<C::Response>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        connect(self.discovery.clone(), self.inner.clone(), uri).boxed()
    }
}

async fn connect<C>(
    discovery: ServiceDiscoveryClient,
    inner: C,
    uri: Uri,
) -> Result<ServiceConnection<C::Response>, BoxError>
where
    C: Service<Uri> + Clone,
    C::Error: Into<BoxError>,
{
    let host = uri.host().filter(|_| uri.port().is_none());
    let service = match host {
        Some(host) => service_named(&discovery, host).await?,
        None => None,
    };
    let Some(service) = service else {
        let connection = inner.oneshot(uri).await.map_err(Into::into)?;
        return Ok(ServiceConnection::new(connection, None));
    };
    let scheme = uri.scheme_str().unwrap_or("http");
    let address: ServiceAddress = format!("{scheme}://{service}").parse()?;
    let balancer = discovery.shared_balancer(&service);
    let mut tried = Vec::new();
    loop {
        let (lease, target) = next(&balancer, &address, &tried).await?;
        match inner.clone().oneshot(target).await {
            Ok(connection) => {
                lease.record(Outcome::Succeeded);
                return Ok(ServiceConnection::new(connection, Some(lease)));
            }
            Err(error) => {
                lease.record(Outcome::Failed);
                if tried.contains(lease.id()) || tried.len() + 1 == ATTEMPTS {
                    return Err(error.into());
                }
                tried.push(lease.id().clone());
            }
        }
    }
}

async fn next(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, Uri), BoxError> {
    let (lease, url) = pick_for(balancer, address, None, tried).await?;
    Ok((lease, Uri::try_from(url)?))
}

pin_project! {
    /// A connection to an instance, which counts as a request in flight until it is closed.
    #[derive(Debug)]
    pub struct ServiceConnection<T> {
        #[pin]
        inner: T,
        // `None` if the connection doesn't belong to a service.
        lease: Option<Lease>,
    }
}

impl<T> ServiceConnection<T> {
    fn new(inner: T, lease: Option<Lease>) -> Self {
        Self { inner, lease }
    }
}

impl<T: Connection> Connection for ServiceConnection<T> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

impl<T: Read> Read for ServiceConnection<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.project().inner.poll_read(context, buffer)
    }
}

impl<T: Write> Write for ServiceConnection<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().inner.poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().inner.poll_write_vectored(context, data)
    }
}
