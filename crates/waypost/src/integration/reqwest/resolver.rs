//! A resolver for any reqwest client, so that URLs name services.

use std::fmt;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::lookup_host;
use tower::BoxError;
use waypost_core::{Host, Instance};

use super::super::names::service_named;
use super::super::retry::ATTEMPTS;
use crate::client::ServiceDiscoveryClient;

/// Resolves the names of services for a client of reqwest that isn't
/// [`integration::reqwest::Client`](super::Client), for example in a library that takes a
/// [`reqwest::Client`].
///
/// ```no_run
/// # fn example(discovery: waypost::ServiceDiscoveryClient) -> Result<(), reqwest::Error> {
/// use waypost::integration::reqwest::ServiceResolver;
///
/// let resolver = ServiceResolver::new(discovery);
/// let http = reqwest::Client::builder().dns_resolver(resolver).no_proxy().build()?;
/// // http.get("http://auth/users")
/// # let _ = http; Ok(())
/// # }
/// ```
///
/// A resolver only returns addresses:
///
/// - The instance's port is used if the URL has none. A port in the URL replaces it.
/// - The first address is the one that the load balancer picks; up to two others follow, which reqwest tries
///   if no connection can be made.
/// - reqwest keeps connections open, so connections are balanced and not requests. Requests don't count as
///   in flight, and their outcomes don't reach outlier detection.
/// - All instances have to have the scheme of the URL. With TLS, the certificate has to be valid for the
///   service's name. A path in an instance's URL is not used.
/// - A name with a dot that the provider doesn't know is resolved by DNS. A name without a dot is that of a
///   service.
#[derive(Clone)]
pub struct ServiceResolver {
    discovery: ServiceDiscoveryClient,
}

impl ServiceResolver {
    /// A resolver of the services that `discovery` finds.
    pub fn new(discovery: ServiceDiscoveryClient) -> Self {
        Self { discovery }
    }
}

impl fmt::Debug for ServiceResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceResolver")
            .field(&self.discovery)
            .finish()
    }
}

impl Resolve for ServiceResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let discovery = self.discovery.clone();
        Box::pin(async move { resolve(&discovery, name.as_str()).await })
    }
}

async fn resolve(discovery: &ServiceDiscoveryClient, host: &str) -> Result<Addrs, BoxError> {
    let Some(service) = service_named(discovery, host).await? else {
        // Port 0 stands for the scheme's default.
        let addresses: Vec<_> = lookup_host((host, 0)).await?.collect();
        return Ok(Box::new(addresses.into_iter()));
    };
    let first = {
        let pick = discovery.pick(&service);
        std::sync::Arc::clone(pick.await?.endpoint())
    };
    let others = discovery.shared_balancer(&service).endpoints();
    let others = others
        .iter()
        .filter(|endpoint| endpoint.instance().id() != first.instance().id());
    let mut addresses = Vec::new();
    let mut failure = None;
    for endpoint in std::iter::once(&first).chain(others).take(ATTEMPTS) {
        match addresses_of(endpoint.instance()).await {
            Ok(found) => addresses.extend(found),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if addresses.is_empty() => Err(error.into()),
        _ => Ok(Box::new(addresses.into_iter())),
    }
}

async fn addresses_of(instance: &Instance) -> std::io::Result<Vec<SocketAddr>> {
    match instance.host() {
        Host::Ip(ip) => Ok(vec![SocketAddr::new(*ip, instance.port())]),
        Host::Name(name) => Ok(lookup_host((&**name, instance.port())).await?.collect()),
    }
}
