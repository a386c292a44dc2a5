//! The client, the registrar and the global functions for programs without async.
//!
//! Calls block until the result is available. Watches and heartbeats run on a background thread, which
//! ends when the last client, balancer and registrar that use it are dropped.
//!
//! ```no_run
//! use waypost::ServiceRegistration;
//! use waypost::blocking::ServiceDiscoveryClient;
//!
//! # fn main() -> Result<(), waypost::Error> {
//! let client = ServiceDiscoveryClient::builder().build_blocking()?;
//! let registrar = client.register(ServiceRegistration::new("billing", 8080)?)?;
//! let lease = client.pick("auth")?.lease();
//! // ... send the request to lease.url() ...
//! lease.succeeded();
//! drop(registrar); // deregisters
//! # Ok(())
//! # }
//! ```
//!
//! Within an async runtime these calls return [`Error::WithinRuntime`], because they would block one of
//! the runtime's threads. Use the async client there; within `spawn_blocking`, call it with
//! `Handle::block_on`.

mod background;
mod global;
mod registrar;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::provider::Provider;
use waypost_core::{Error, Instance, Invalid, ServiceName, ServiceRegistration};

use self::background::Background;
use crate::balance::{Balancer as AsyncBalancer, Explanation, Pick};
use crate::client::{ClientBuilder, ServiceDiscoveryClient as AsyncClient};
use crate::registrar::Registrar as AsyncRegistrar;
use crate::selector::Selector;
use crate::snapshot::{Catalog, Snapshot};

pub use self::global::{
    deregister_all_services, deregister_service, get_service, get_service_url, get_services,
    register_service,
};
pub use self::registrar::Registrar;

/// Looks services up by name and balances requests over their instances. Clones share all state.
#[derive(Clone)]
pub struct ServiceDiscoveryClient {
    client: AsyncClient,
    registrar: Option<Arc<Registrar>>,
    // Last, so that it is dropped after the fields that use it.
    background: Arc<Background>,
}

impl ClientBuilder {
    /// Builds a client for a program without async and starts to register, if a registration was set.
    /// The instance is deregistered when the last clone of the client is dropped.
    ///
    /// # Errors
    /// The same as for [`build`](Self::build); and [`Error::WithinRuntime`] within an async runtime.
    pub fn build_blocking(mut self) -> Result<ServiceDiscoveryClient, Error> {
        let background = Background::start()?;
        let registration = self.take_registration();
        let client = background.enter(|| self.build())??;
        let registrar = match registration {
            Some(registration) => {
                let provider = Arc::clone(client.provider());
                background
                    .enter(|| AsyncRegistrar::start_if_supported(provider, registration))??
                    .map(|registrar| Registrar::new(registrar, Arc::clone(&background)))
            }
            None => None,
        };
        Ok(ServiceDiscoveryClient {
            client,
            registrar: registrar.map(Arc::new),
            background,
        })
    }
}

impl ServiceDiscoveryClient {
    /// Builds a client; finish with [`build_blocking`](ClientBuilder::build_blocking).
    pub fn builder() -> ClientBuilder {
        AsyncClient::builder()
    }

    /// A client of this provider, with default options.
    ///
    /// # Errors
    /// Within an async runtime, or if the background thread can't be started.
    pub fn new(provider: Arc<dyn Provider>) -> Result<Self, Error> {
        Self::builder().shared_provider(provider).build_blocking()
    }

    /// This client, but only with the instances that the selector accepts; see
    /// [`waypost::ServiceDiscoveryClient::with_selector`](AsyncClient::with_selector).
    #[must_use]
    pub fn with_selector(&self, selector: impl Into<Arc<Selector>>) -> Self {
        Self {
            client: self.client.with_selector(selector),
            ..self.clone()
        }
    }

    /// The instances of a service that accept new requests, sorted by id.
    ///
    /// # Errors
    /// If there are none, or if the provider fails and has never answered; see [`Error`].
    pub fn discover_service<N>(&self, service: N) -> Result<Vec<Arc<Instance>>, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        self.background
            .block_on(self.client.discover_service(service))?
    }

    /// The URL of a path on an instance that the load balancer picks. The first look-up of a service
    /// waits for the provider; later ones read memory.
    ///
    /// # Errors
    /// The same as for [`discover_service`](Self::discover_service).
    pub fn service_url<N>(&self, service: N, path: &str) -> Result<String, Error>
    where
        N: AsRef<str> + TryInto<ServiceName, Error = Invalid>,
    {
        self.background
            .block_on(self.client.service_url(service, path))?
    }

    /// An instance that the load balancer picks. [`Pick::lease`] counts the request as in flight and
    /// records its outcome.
    ///
    /// # Errors
    /// The same as for [`discover_service`](Self::discover_service).
    pub fn pick<N>(&self, service: N) -> Result<Pick, Error>
    where
        N: AsRef<str> + TryInto<ServiceName, Error = Invalid>,
    {
        self.background.block_on(self.client.pick(service))?
    }

    /// A balancer of one service; waits for the provider's first answer. Hold one if picks are
    /// frequent: its picks don't look up the name.
    ///
    /// # Errors
    /// If the name is not valid, or the provider fails.
    pub fn balancer<N>(&self, service: N) -> Result<Balancer, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let balancer = self.background.enter(|| self.client.balancer(service))??;
        self.background.block_on(balancer.ready())??;
        Ok(Balancer {
            balancer,
            _background: Arc::clone(&self.background),
        })
    }

    /// Waits until a service has an instance that accepts new requests, for at most this long.
    ///
    /// # Errors
    /// If the name is not valid, or if there is still no such instance after this time.
    pub fn wait_for<N>(&self, service: N, limit: Duration) -> Result<Arc<Snapshot>, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let service = service.try_into()?;
        self.background.block_on(async {
            let in_time = tokio::time::timeout(limit, self.client.wait_for(&service)).await;
            if let Ok(found) = in_time {
                return found;
            }
            let snapshot = self.client.directory().lookup(&service).await?;
            snapshot.usable()?;
            Ok(snapshot)
        })?
    }

    /// The names of all services.
    ///
    /// # Errors
    /// If the provider fails and has never answered.
    pub fn services(&self) -> Result<Arc<Catalog>, Error> {
        self.background.block_on(self.client.services())?
    }

    /// Explains for each instance of a service whether it is picked, and why.
    ///
    /// # Errors
    /// If the name is not valid, or if the provider fails and has never answered.
    pub fn explain<N>(&self, service: N) -> Result<Explanation, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        self.background.block_on(self.client.explain(service))?
    }

    /// Switches to another strategy; see [`crate::ServiceDiscoveryClient::set_strategy_named`].
    ///
    /// # Errors
    /// If there is no strategy of that name.
    pub fn set_strategy_named(&self, name: &str) -> Result<(), Error> {
        self.client.set_strategy_named(name)
    }

    /// Registers with the client's provider, until the registrar is dropped.
    ///
    /// # Errors
    /// The same as for [`crate::Registrar::start`].
    pub fn register(&self, registration: ServiceRegistration) -> Result<Registrar, Error> {
        let provider = Arc::clone(self.client.provider());
        let start = || AsyncRegistrar::start(provider, registration);
        let registrar = self.background.enter(start)??;
        Ok(Registrar::new(registrar, Arc::clone(&self.background)))
    }

    /// The registrar of the registration that the client was built with, if any.
    pub fn registrar(&self) -> Option<&Registrar> {
        self.registrar.as_deref()
    }

    /// The client's provider.
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

/// A [`crate::Balancer`] whose watch runs on the client's background thread.
#[derive(Debug)]
pub struct Balancer {
    balancer: AsyncBalancer,
    _background: Arc<Background>,
}

impl Deref for Balancer {
    type Target = AsyncBalancer;

    fn deref(&self) -> &AsyncBalancer {
        &self.balancer
    }
}
