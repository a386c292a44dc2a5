//! tonic: a channel over the instances of a service, as they come and go.
//!
//! Each call is sent to an instance chosen for it. Connections belong to instances: those that
//! leave the registry are closed and new ones are made without waiting for a call. An instance that
//! can't be reached costs no call: another one gets it, and outlier detection ejects the first.
//! `examples/tonic_client.rs` is a whole one.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use http::{HeaderMap, Request, Response};
use tokio::task::AbortHandle;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower::{BoxError, Service, ServiceExt};
use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceAddress, ServiceName};

use super::http::classify;
use super::retry::{ATTEMPTS, choose};
use crate::client::ServiceDiscoveryClient;
use crate::directory::Subscription;
use crate::outlier::Outcome;
use crate::snapshot::Snapshot;

/// How long a connection may take, unless `configure` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What generated clients take in place of a [`Channel`]. Clones share everything.
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
    balancer: crate::balance::Balancer,
    address: ServiceAddress,
    channels: Arc<Channels>,
    following: AbortHandle,
}

type Configure = dyn Fn(Endpoint) -> Endpoint + Send + Sync;

/// The connections, one per instance.
struct Channels {
    open: Mutex<HashMap<InstanceId, (Arc<Instance>, Channel)>>,
    configure: Box<Configure>,
}

impl BalancedChannel {
    /// A channel to a service, with tonic's usual settings for each connection.
    ///
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the name is not valid.
    pub fn new<N>(discovery: &ServiceDiscoveryClient, service: N) -> Result<Self, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        Self::with(discovery, service, |endpoint| endpoint)
    }

    /// A channel to a service; `configure` sets what a connection needs: timeouts, TLS.
    ///
    /// # Errors
    /// If the name is not valid.
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
        let changes = discovery.directory().subscribe(&service);
        let following = tokio::spawn(follow(Arc::clone(&channels), changes));
        Ok(Self {
            inner: Arc::new(Inner {
                balancer: discovery.balancer(&service)?,
                address: ServiceAddress::of(service),
                channels,
                following: following.abort_handle(),
            }),
        })
    }

    /// The balancer that chooses.
    pub fn balancer(&self) -> &crate::balance::Balancer {
        &self.inner.balancer
    }

    /// How many instances it has a connection for.
    pub fn connections(&self) -> usize {
        self.inner.channels.open().len()
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
        self.following.abort();
    }
}

/// Connects to instances as they come, and lets go of those that leave, with or without calls.
async fn follow(channels: Arc<Channels>, mut changes: Subscription<Snapshot>) {
    loop {
        let snapshot = changes.changed().await;
        channels.keep_only(&snapshot);
        for endpoint in snapshot.ready() {
            let (channels, instance) = (Arc::clone(&channels), Arc::clone(endpoint.instance()));
            tokio::spawn(async move {
                if let Err(error) = channels.to(&instance).await {
                    tracing::debug!(instance = %instance.id(), %error, "no gRPC connection yet");
                }
            });
        }
    }
}

impl Channels {
    fn keep_only(&self, snapshot: &Snapshot) {
        let urls: HashMap<_, _> = snapshot
            .ready()
            .iter()
            .map(|endpoint| endpoint.instance())
            .map(|instance| (instance.id(), instance.url()))
            .collect();
        self.open()
            .retain(|id, (instance, _)| urls.get(id) == Some(&instance.url()));
    }

    /// The connection to an instance, which is made if there is none. Not a lazy one: that a
    /// connection can't be made must be known before a call is handed over to it.
    async fn to(&self, instance: &Arc<Instance>) -> Result<Channel, tonic::transport::Error> {
        if let Some((known, channel)) = self.open().get(instance.id())
            && known.url() == instance.url()
        {
            return Ok(channel.clone());
        }
        // `grpc` and `grpcs` are how some registries call it; to tonic it is HTTP.
        let scheme = match instance.scheme() {
            "https" | "grpcs" => "https",
            _ => "http",
        };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{}", instance.authority()))?;
        let endpoint = (self.configure)(endpoint.connect_timeout(CONNECT_TIMEOUT));
        let channel = endpoint.connect().await?;
        let entry = (Arc::clone(instance), channel.clone());
        self.open().insert(instance.id().clone(), entry);
        Ok(channel)
    }

    /// After a connection broke: the next call makes a new one, or learns that it can't be made.
    fn forget(&self, id: &InstanceId) {
        self.open().remove(id);
    }

    /// A map is never half changed, so a panic elsewhere leaves it in order.
    fn open(&self) -> MutexGuard<'_, HashMap<InstanceId, (Arc<Instance>, Channel)>> {
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
    let mut tried = Vec::new();
    let (lease, channel) = loop {
        let (lease, _) = choose(&inner.balancer, &inner.address, &tried)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        match inner.channels.to(lease.endpoint().instance()).await {
            Ok(channel) => break (lease, channel),
            Err(error) => {
                lease.record(Outcome::Failed);
                if tried.contains(lease.id()) || tried.len() + 1 == ATTEMPTS {
                    return Err(error.into());
                }
                tried.push(lease.id().clone());
            }
        }
    };
    match channel.oneshot(request).await {
        Ok(mut response) => {
            lease.record(grpc_outcome(&response));
            response.extensions_mut().insert(Arc::new(lease));
            Ok(response)
        }
        Err(error) => {
            lease.record(Outcome::Failed);
            inner.channels.forget(lease.id());
            Err(error.into())
        }
    }
}

/// A call that fails before its first message says so in the headers.
fn grpc_outcome(response: &Response<Body>) -> Outcome {
    let headers: &HeaderMap = response.headers();
    match Status::from_header_map(headers).map(|status| status.code()) {
        Some(Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss) => {
            Outcome::Failed
        }
        Some(Code::ResourceExhausted) => Outcome::Rejected { retry_after: None },
        _ => classify(response.status(), headers),
    }
}
