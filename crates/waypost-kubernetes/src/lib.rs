//! Kubernetes: the endpoints of Services, by its API.
//!
//! From the bottom up: `config` tells where and as whom, `connection` makes requests.
//! A `reflector` lists one kind of object and follows it, a `mirror` holds what it told of those that
//! its `cover` includes, and a `pulse` finds out whether silence means that nothing happens. One
//! `view` per namespace has these for slices and for Services; `join` makes instances of them,
//! `members` keeps those of one service up to date, also where a `renewal` stays out, `sight` decides
//! what an answer can be made of, and `said` carries it to all who listen. `register` is the other
//! way: it writes what runs outside of the cluster.

mod access;
mod builder;
mod config;
mod connection;
mod cover;
mod events;
mod fault;
mod join;
mod members;
mod mirror;
mod place;
mod ports;
mod pulse;
mod reflector;
mod register;
mod renewal;
mod said;
mod sight;
mod view;
mod views;
mod wire;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

pub use builder::KubernetesBuilder;
pub use config::pod_without_token;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use waypost_core::provider::{Heartbeat, NamesWatch, Provider, Registry, Report, Watch};
use waypost_core::{Environment, Error, InstanceId, ProviderError, Registration, ServiceName};

use self::connection::Connection;
use self::register::Registrations;
use self::views::Views;

/// Finds the endpoints of Services by the API of Kubernetes, and registers what runs outside of the
/// cluster.
///
/// The truth is in the EndpointSlices ([`discovery.k8s.io/v1`]), all those of a Service together.
/// A name is `web`, for a Service in our own namespace, or `web.demo`, `web.demo.svc`,
/// `web.demo.svc.cluster.local` for one in the namespace `demo`.
///
/// | Kubernetes | instance |
/// |---|---|
/// | `targetRef`, else address and port | id |
/// | the first of `addresses` | host; in a dual-stack cluster that of the Service's first family |
/// | [`conditions`] | health: `ready`, or nothing said of it, is passing; else `terminating` and not said not to be `serving`, draining; else critical |
/// | the only port; the one wanted; `http`, `https`, `grpc`, `web`; the Service's first | port; all that have names are named ports |
/// | `appProtocol`, else the port's name, else 443 and 8443 | scheme |
/// | the zone of `hints`, if all ready endpoints have hints, else `zone` | zone |
/// | label `app.kubernetes.io/version` | version |
/// | labels, and the annotations that were chosen | metadata, with `namespace`, `pod`, `node`, `zone` |
/// | annotations `waypost.dev/weight`, `version`, `tags`, `scheme`, `path`, `port`, `meta.KEY` | what they say |
///
/// An `ExternalName` Service is one instance at that name. Where EndpointSlices may not be read,
/// there is one at the Service's name in the cluster's DNS; what is lacking then stands in its
/// metadata as `degraded`.
///
/// A namespace costs two watches, however many services are asked for. They are opened again every
/// 30 to 60 s where they left off. What is known stays known whatever happens to the API server, and
/// is replaced only by a whole new list:
///
/// | case | noticed | right again |
/// |---|---|---|
/// | the server breaks its connections | at once | 2 s after its return |
/// | it hangs, or its etcd does | within 17 s | 2 s |
/// | it refuses new connections while watches go on | within 11 s | 2 s |
/// | a single connection leads nowhere | within 65 s | at once |
/// | etcd is restored to an earlier state | within 13 s | at once |
/// | history is forgotten (410) | at once | at once, by a new list |
/// | a right is missing | at once | 30 s after it is granted |
/// | who registered from outside of the cluster renews nothing | 3 minutes | at the next renewal |
///
/// ```no_run
/// # use waypost_kubernetes::KubernetesProvider;
/// let cluster = KubernetesProvider::builder().namespace("demo").build()?;
/// # Ok::<(), waypost_core::Error>(())
/// ```
///
/// The program itself must enable one `v1_*` feature of the crate `k8s-openapi`, such as `v1_33`.
///
/// [`discovery.k8s.io/v1`]: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
/// [`conditions`]: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions
#[derive(Clone)]
pub struct KubernetesProvider {
    views: Arc<Views>,
    registrations: Arc<Registrations>,
}

impl KubernetesProvider {
    /// Begins a provider that takes what isn't set from this process's environment.
    pub fn builder() -> KubernetesBuilder {
        KubernetesBuilder::of(&Environment::of_this_process())
    }

    /// The cluster and namespace that the environment names.
    ///
    /// # Errors
    /// If a variable or a file is bad.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        KubernetesBuilder::of(environment).build()
    }

    /// The way to the API server.
    fn connection(&self) -> &Arc<Connection> {
        self.views.connection()
    }
}

impl fmt::Debug for KubernetesProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesProvider")
            .field("connection", self.connection())
            .finish_non_exhaustive()
    }
}

impl Provider for KubernetesProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(self.connection().describe())
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        self.views.watch(service)
    }

    fn watch_names(&self) -> NamesWatch {
        self.views.watch_names()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

/// For what runs outside of the cluster. In a pod nothing is accepted, with the reason and what to
/// put into the pod's manifests instead.
impl Registry for KubernetesProvider {
    fn accepts(&self, registration: &Registration) -> Result<(), ProviderError> {
        self.registrations.accepts(registration)
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        report: &'a Report,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registrations.register(registration, report).boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registrations.deregister(id).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: Report,
    ) -> BoxFuture<'a, Result<Heartbeat, ProviderError>> {
        let registrations = &self.registrations;
        async move { registrations.heartbeat(registration, &report).await }.boxed()
    }

    fn set_maintenance<'a>(
        &'a self,
        registration: &'a Registration,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.registrations
            .set_maintenance(registration, reason)
            .boxed()
    }

    fn local_address(&self) -> Option<IpAddr> {
        self.registrations.local_address()
    }
}
