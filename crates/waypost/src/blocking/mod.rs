//! The same for programs without async: a client, a registrar and the functions of the module,
//! which wait for what the async ones are awaited for.
//!
//! Watches and heartbeats run on one thread of their own, which ends with the last client,
//! balancer or registrar that uses it.
//!
//! ```no_run
//! use waypost::ServiceRegistration;
//! use waypost::blocking::ServiceDiscoveryClient;
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let client = ServiceDiscoveryClient::builder().build_blocking()?;
//! let registered = client.register(ServiceRegistration::new("billing", 8080)?)?;
//! let lease = client.pick("auth")?.lease();
//! // ... send the request to lease.url() ...
//! lease.succeeded();
//! drop(registered); // taken back
//! # Ok(())
//! # }
//! ```
//!
//! Within an async runtime these are errors, [`Error::WithinRuntime`]: they would hold up a thread
//! that others need. Use the async ones there, in `spawn_blocking` with `Handle::block_on`.

mod background;
mod global;
mod registrar;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use self::background::Background;
pub use self::{
    global::{deregister_service, get_service, get_service_url, get_services, register_service},
    registrar::Registrar,
};
use waypost_core::provider::Provider;
use waypost_core::{Error, Instance, Invalid, ServiceName, ServiceRegistration};

use crate::balance::{Explanation, Pick};
use crate::client::ClientBuilder;
use crate::snapshot::{Catalog, Snapshot};

/// Finds services by name and chooses among their instances. Clones share everything.
#[derive(Clone)]
pub struct ServiceDiscoveryClient {
    client: crate::client::ServiceDiscoveryClient,
    /// Kept for as long as the client lives.
    registrar: Option<Arc<Registrar>>,
    // Last, so that it is there while the others go.
    background: Arc<Background>,
}

impl ClientBuilder {
    /// Makes a client for a program without async, and begins to register if there is something to
    /// register; that is taken back when the last clone of the client is dropped.
    ///
    /// # Errors
    /// As [`build`](Self::build); and within an async runtime.
    pub fn build_blocking(mut self) -> Result<ServiceDiscoveryClient, Error> {
        let background = Background::start()?;
        let registration = self.take_registration();
        let client = background.within(|| self.build())??;
        let mut client = ServiceDiscoveryClient {
            client,
            registrar: None,
            background,
        };
        if let Some(registration) = registration {
            client.registrar = client.register_if_supported(registration)?.map(Arc::new);
        }
        Ok(client)
    }
}

impl ServiceDiscoveryClient {
    /// Begins a client; [`build_blocking`](ClientBuilder::build_blocking) makes it.
    pub fn builder() -> ClientBuilder {
        crate::client::ServiceDiscoveryClient::builder()
    }

    /// A client of one provider, with all else as usual.
    ///
    /// # Errors
    /// Within an async runtime, or if no thread can be started.
    pub fn new(provider: Arc<dyn Provider>) -> Result<Self, Error> {
        Self::builder().shared_provider(provider).build_blocking()
    }

    /// The instances of a service that take new work, in order of their ids.
    ///
    /// # Errors
    /// If there is none, or nothing is known: see [`Error`].
    pub fn discover_service<N>(&self, service: N) -> Result<Vec<Arc<Instance>>, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        self.background.run(self.client.discover_service(service))?
    }

    /// The URL of a path at an instance chosen by the load balancer. The first look-up of a
    /// service waits for the provider, later ones read memory.
    ///
    /// # Errors
    /// As [`discover_service`](Self::discover_service).
    pub fn service_url<N>(&self, service: N, path: &str) -> Result<String, Error>
    where
        N: AsRef<str> + TryInto<ServiceName, Error = Invalid>,
    {
        self.background
            .run(self.client.service_url(service, path))?
    }

    /// An instance chosen by the load balancer; [`Pick::lease`] counts the request in flight and
    /// takes its outcome.
    ///
    /// # Errors
    /// As [`discover_service`](Self::discover_service).
    pub fn pick<N>(&self, service: N) -> Result<Pick, Error>
    where
        N: AsRef<str> + TryInto<ServiceName, Error = Invalid>,
    {
        self.background.run(self.client.pick(service))?
    }

    /// A balancer of one service that has its first answer, to be held by those who pick often:
    /// its picks cost no look-up of the name.
    ///
    /// # Errors
    /// If the name is not valid, or the provider gives no answer.
    pub fn balancer<N>(&self, service: N) -> Result<Balancer, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let balancer = self.background.within(|| self.client.balancer(service))??;
        self.background.run(balancer.ready())??;
        Ok(Balancer {
            balancer,
            _background: Arc::clone(&self.background),
        })
    }

    /// Waits until a service has an instance that takes new work, for at most so long.
    ///
    /// # Errors
    /// If the name is not valid, or after that time the reason why there is none.
    pub fn wait_for<N>(&self, service: N, limit: Duration) -> Result<Arc<Snapshot>, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let service = service.try_into()?;
        self.background.run(async {
            let found = tokio::time::timeout(limit, self.client.wait_for(&service)).await;
            match found {
                Ok(found) => found,
                Err(_) => {
                    let snapshot = self.client.directory().lookup(&service).await?;
                    snapshot.usable()?;
                    Ok(snapshot)
                }
            }
        })?
    }

    /// The names of all services.
    ///
    /// # Errors
    /// If nothing is known and the provider fails.
    pub fn services(&self) -> Result<Arc<Catalog>, Error> {
        self.background.run(self.client.services())?
    }

    /// Why the instances of a service are picked or not.
    ///
    /// # Errors
    /// As [`discover_service`](Self::discover_service), but an instance is not needed.
    pub fn explain<N>(&self, service: N) -> Result<Explanation, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        self.background.run(self.client.explain(service))?
    }

    /// Chooses by another strategy from now on; as
    /// [`crate::ServiceDiscoveryClient::set_strategy_named`].
    ///
    /// # Errors
    /// If there is no strategy of that name.
    pub fn set_strategy_named(&self, name: &str) -> Result<(), Error> {
        self.client.set_strategy_named(name)
    }

    /// Registers with the client's provider for as long as the registrar is held.
    ///
    /// # Errors
    /// As [`crate::Registrar::start`].
    pub fn register(&self, registration: ServiceRegistration) -> Result<Registrar, Error> {
        let provider = Arc::clone(self.client.provider());
        Registrar::on(&self.background, || {
            crate::registrar::Registrar::start(provider, registration)
        })
    }

    fn register_if_supported(
        &self,
        registration: ServiceRegistration,
    ) -> Result<Option<Registrar>, Error> {
        let provider = Arc::clone(self.client.provider());
        let start = || crate::registrar::Registrar::start_if_supported(provider, registration);
        let registrar = self.background.within(start)??;
        Ok(registrar.map(|registrar| Registrar::of(registrar, &self.background)))
    }

    /// The client's own registration, if it was built with one.
    pub fn registrar(&self) -> Option<&Registrar> {
        self.registrar.as_deref()
    }

    /// The provider behind the client.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        self.client.provider()
    }
}

impl fmt::Debug for ServiceDiscoveryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServiceDiscoveryClient")
            .field(&self.client)
            .finish()
    }
}

/// A balancer whose service is followed on the client's thread; all else is as in
/// [`crate::Balancer`].
#[derive(Debug)]
pub struct Balancer {
    balancer: crate::balance::Balancer,
    _background: Arc<Background>,
}

impl Deref for Balancer {
    type Target = crate::balance::Balancer;

    fn deref(&self) -> &crate::balance::Balancer {
        &self.balancer
    }
}
