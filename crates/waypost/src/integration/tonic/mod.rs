//! tonic: a channel over all instances of a service.
//!
//! An instance is picked for each call. There is one connection per instance, which is opened as soon as
//! the registry lists the instance and closed when it is removed. If an instance can't be reached, the
//! call goes to another one, and the failure counts for outlier detection.
//! `examples/tonic_client.rs` is a complete client.

mod body;
mod outcome;
mod span;

use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use http::{Request, Response};
use tokio::task::AbortHandle;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Status, TimeoutExpired};
use tower::{BoxError, Service, ServiceExt};
use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceAddress, ServiceName};

/// The crate, in the version whose types are used here.
pub use ::tonic;

use self::body::CallBody;
use self::outcome::head_outcome;
use super::retry::{ATTEMPTS, pick_for};
use super::span::AttemptSpan;
use crate::balance::Balancer;
use crate::client::ServiceDiscoveryClient;
use crate::directory::Subscription;
use crate::outlier::Outcome;
use crate::snapshot::Snapshot;

/// The timeout for opening a connection, unless `configure` sets another.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A channel for generated clients, in place of [`Channel`]. Clones share all state.
///
/// ```no_run
/// # async fn example(discovery: waypost::ServiceDiscoveryClient) -> Result<(), waypost::Error> {
/// use waypost::integration::tonic::BalancedChannel;
/// let channel = BalancedChannel::new(&discovery, "greeter")?;
/// // let client = GreeterClient::new(channel);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct BalancedChannel {
    inner: Arc<Inner>,
}

struct Inner {
    balancer: Arc<Balancer>,
    address: ServiceAddress,
    channels: Arc<Channels>,
    connector: AbortHandle,
}

type Configure = dyn Fn(Endpoint) -> Endpoint + Send + Sync;

/// The open connections, one per instance.
struct Channels {
    open: Mutex<OpenChannels>,
    configure: Box<Configure>,
}

type OpenChannels = HashMap<InstanceId, (Arc<Instance>, Channel)>;

impl BalancedChannel {
    /// A channel to a service, with tonic's default settings for each connection.
    ///
    /// # Errors
    /// If the name is not valid.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn new<N>(discovery: &ServiceDiscoveryClient, service: N) -> Result<Self, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        Self::with(discovery, service, |endpoint| endpoint)
    }

    /// A channel to a service; `configure` changes the settings of each connection, such as timeouts
    /// and TLS.
    ///
    /// # Errors
    /// If the name is not valid.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn with<N>(
        discovery: &ServiceDiscoveryClient,
        service: N,
        configure: impl Fn(Endpoint) -> Endpoint + Send + Sync + 'static,
    ) -> Result<Self, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let service = service.try_into()?;
        let channels = Arc::new(Channels {
            open: Mutex::default(),
            configure: Box::new(configure),
        });
        let snapshots = discovery.directory().subscribe(&service);
        let balancer = Arc::new(discovery.balancer(&service)?);
        let connect = keep_connected(Arc::clone(&channels), Arc::clone(&balancer), snapshots);
        let connector = tokio::spawn(connect);
        Ok(Self {
            inner: Arc::new(Inner {
                balancer,
                address: ServiceAddress::of(service),
                channels,
                connector: connector.abort_handle(),
            }),
        })
    }

    /// The balancer that picks the instances.
    pub fn balancer(&self) -> &Balancer {
        &self.inner.balancer
    }

    /// The number of open connections, one per connected instance.
    pub fn connections(&self) -> usize {
        self.inner.channels.lock().len()
    }
}

impl fmt::Debug for BalancedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BalancedChannel")
            .field(&self.inner.balancer)
            .finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.connector.abort();
    }
}

/// Connects to the instances that the balancer picks, and closes the connections to others.
async fn keep_connected(
    channels: Arc<Channels>,
    balancer: Arc<Balancer>,
    mut snapshots: Subscription<Snapshot>,
) {
    loop {
        snapshots.changed().await;
        let endpoints = balancer.endpoints();
        channels.close_unused(&endpoints);
        for endpoint in endpoints {
            let (channels, instance) = (Arc::clone(&channels), Arc::clone(endpoint.instance()));
            tokio::spawn(async move {
                if let Err(error) = channels.connect(&instance).await {
                    tracing::debug!(instance = %instance.id(), %error, "could not connect");
                }
            });
        }
    }
}

impl Channels {
    fn close_unused(&self, endpoints: &[Arc<crate::endpoint::Endpoint>]) {
        let urls: HashMap<_, _> = endpoints
            .iter()
            .map(|endpoint| endpoint.instance())
            .map(|instance| (instance.id(), instance.url()))
            .collect();
        self.lock()
            .retain(|id, (instance, _)| urls.get(id) == Some(&instance.url()));
    }

    /// The connection to an instance; opens one if there is none. It is not opened lazily, because a
    /// call that was handed to a channel can't be moved to another instance when connecting fails.
    async fn connect(&self, instance: &Arc<Instance>) -> Result<Channel, tonic::transport::Error> {
        if let Some((known, channel)) = self.lock().get(instance.id())
            && known.url() == instance.url()
        {
            return Ok(channel.clone());
        }
        // Some registries use the schemes `grpc` and `grpcs`; tonic expects those of HTTP.
        let scheme = match instance.scheme() {
            "https" | "grpcs" => "https",
            _ => "http",
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", instance.authority()))?;
        let endpoint = (self.configure)(endpoint.connect_timeout(CONNECT_TIMEOUT));
        let channel = endpoint.connect().await?;
        let entry = (Arc::clone(instance), channel.clone());
        self.lock().insert(instance.id().clone(), entry);
        Ok(channel)
    }

    /// Removes a broken connection, so that the next call opens another.
    fn remove(&self, id: &InstanceId) {
        self.lock().remove(id);
    }

    /// No code panics halfway through a change of the map, so a poisoned lock is safe to use.
    fn lock(&self) -> MutexGuard<'_, OpenChannels> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Request<Body>> for BalancedChannel {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        send(Arc::clone(&self.inner), request).boxed()
    }
}

async fn send(inner: Arc<Inner>, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let (balancer, address) = (&inner.balancer, &inner.address);
    let mut tried = Vec::new();
    let (lease, span, channel) = loop {
        let (lease, _) = pick_for(balancer, address, None, &tried)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let span = AttemptSpan::grpc(request.uri().path(), address.service(), &lease);
        let connecting = inner.channels.connect(lease.endpoint().instance());
        match span.instrument(connecting).await {
            Ok(channel) => break (lease, span, channel),
            Err(error) => {
                span.record_error("connect");
                lease.record(Outcome::Failed);
                if tried.contains(lease.id()) || tried.len() + 1 == ATTEMPTS {
                    return Err(error.into());
                }
                tried.push(lease.id().clone());
                balancer.metrics().retried();
            }
        }
    };
    match span.instrument(channel.oneshot(request)).await {
        Ok(response) => {
            lease.record(head_outcome(&response));
            span.record_grpc_response(&response);
            Ok(response.map(|body| Body::new(CallBody::new(body, lease, span))))
        }
        Err(error) => {
            span.record_error(error_type(&error));
            lease.record(Outcome::Failed);
            inner.channels.remove(lease.id());
            Err(error.into())
        }
    }
}

/// The value of `error.type` for a call without a response.
fn error_type(error: &(dyn StdError + 'static)) -> &'static str {
    if error.is::<TimeoutExpired>() {
        "timeout"
    } else if error.is::<ConnectError>() {
        "connect"
    } else {
        error.source().map_or("connection_lost", error_type)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_of_another_kind_is_a_lost_connection() {
        let inner = io::Error::from(io::ErrorKind::ConnectionReset);
        let outer = io::Error::other(io::Error::other(inner));
        assert_eq!(error_type(&outer), "connection_lost");
    }
}
