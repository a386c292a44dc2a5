//! The client: looks services up, picks instances, and registers the application.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use waypost_core::provider::Provider;
use waypost_core::{Environment, Error, Instance, Invalid, ServiceName, ServiceRegistration};

use crate::active_check::ActiveCheck;
use crate::balance::{
    Balancer, BalancerOptions, Explanation, Key, Pick, RoundRobin, Strategy, StrategyFactory,
    factory_named,
};
use crate::directory::{Directory, DirectoryOptions};
use crate::name_map::NameMap;
use crate::outlier::OutlierDetection;
use crate::registrar::Registrar;
use crate::selector::Selector;
use crate::settings::Settings;
use crate::snapshot::{Catalog, Endpoint, Snapshot};

/// Looks services up by name and balances requests over their instances. Clones share all state.
///
/// Its futures must run in a Tokio runtime; without one, use
/// [`blocking::ServiceDiscoveryClient`](crate::blocking::ServiceDiscoveryClient).
///
/// ```no_run
/// # async fn example() -> Result<(), waypost::Error> {
/// use waypost::ServiceDiscoveryClient;
///
/// let client = ServiceDiscoveryClient::builder().registry("localhost", 8500).build()?;
/// let instances = client.discover_service("target-service").await?;
/// let url = client.service_url("target-service", "/api/resource").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceDiscoveryClient {
    inner: Arc<Inner>,
    /// `None` if every instance is accepted.
    selector: Option<Arc<Selector>>,
}

struct Inner {
    directory: Directory,
    strategy: ArcSwap<StrategyFactory>,
    balancing: BalancerOptions,
    balancers: NameMap<Arc<Balancer>>,
    /// The balancers of clients with a selector, for each service.
    selected: NameMap<Arc<SelectedBalancers>>,
    registrar: Option<Registrar>,
}

type SelectedBalancers = HashMap<Arc<Selector>, Arc<Balancer>>;

/// How many selectors of one service are kept prepared. With more, one that is kept is replaced at random.
const MAX_SELECTORS: usize = 64;

impl ServiceDiscoveryClient {
    /// Builds a client. The environment chooses the provider unless one is set; see
    /// [`settings`](crate::settings).
    pub fn builder() -> ClientBuilder {
        ClientBuilder {
            provider: None,
            environment: None,
            options: None,
            strategy: None,
            balancing: None,
            outlier_detection: None,
            active_check: None,
            registration: None,
        }
    }

    /// A client of this provider, with default options.
    pub fn new(provider: Arc<dyn Provider>) -> Self {
        Self::assemble(
            Directory::new(provider),
            round_robin(),
            BalancerOptions::default(),
            None,
        )
    }

    fn assemble(
        directory: Directory,
        strategy: StrategyFactory,
        balancing: BalancerOptions,
        registrar: Option<Registrar>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                directory,
                strategy: ArcSwap::from_pointee(strategy),
                balancing,
                balancers: NameMap::default(),
                selected: NameMap::default(),
                registrar,
            }),
            selector: None,
        }
    }

    /// This client, but only with the instances that the selector accepts; see [`Selector`]. It shares
    /// everything else with this client: watches, requests in flight, latencies, ejections. It replaces
    /// the selector of this client, if that has one.
    ///
    /// It is cheap to create one for each call. The instances that a selector accepts are found and
    /// weighed once for each change of the service, not for each pick. This is kept for up to 64
    /// selectors of each service, so don't make selectors from unbounded input such as the name of a
    /// user; use [`pick_for`](Self::pick_for) for that.
    ///
    /// ```no_run
    /// # async fn example(client: waypost::ServiceDiscoveryClient) -> Result<(), waypost::Error> {
    /// use waypost::Selector;
    ///
    /// let canary = Selector::new().metadata("track", "canary");
    /// let pick = client.with_selector(canary).pick("auth").await?;
    /// # let _ = pick; Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_selector(&self, selector: impl Into<Arc<Selector>>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            selector: Some(selector.into()).filter(|selector| !selector.is_empty()),
        }
    }

    /// The selector of this client, if it has one.
    pub fn selector(&self) -> Option<&Selector> {
        self.selector.as_deref()
    }

    /// The instances of a service that accept new requests, sorted by id.
    ///
    /// # Errors
    /// If there are none, or if the provider fails and has never answered; [`Error::NoMatch`] if there are
    /// some, but none that the [selector](Self::with_selector) accepts. See [`Error`].
    pub async fn discover_service<N>(&self, service: N) -> Result<Vec<Arc<Instance>>, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let snapshot = self.inner.directory.lookup(&service.try_into()?).await?;
        let instance = |endpoint: &Arc<Endpoint>| Arc::clone(endpoint.instance());
        Ok(match &self.selector {
            None => snapshot.usable()?.iter().map(instance).collect(),
            Some(selector) => {
                let endpoints = snapshot.usable_matching(selector)?;
                endpoints.iter().map(instance).collect()
            }
        })
    }

    /// The URL of a path on an instance that the load balancer picks. The first look-up of a service
    /// waits for the provider; later ones read memory.
    ///
    /// # Errors
    /// The same as for [`discover_service`](Self::discover_service).
    pub async fn service_url<N>(&self, service: N, path: &str) -> Result<String, Error>
    where
        N: AsRef<str> + TryInto<ServiceName, Error = Invalid>,
    {
        // Avoids moving the pick through a future when there is nothing to wait for.
        if let Some(pick) = self.pick_from_memory(service.as_ref()) {
            return Ok(pick.url_for(path));
        }
        Ok(self.pick(service).await?.url_for(path))
    }

    /// An instance that the load balancer picks.
    ///
    /// # Errors
    /// The same as for [`discover_service`](Self::discover_service).
    pub async fn pick<N>(&self, service: N) -> Result<Pick, Error>
    where
        N: AsRef<str> + TryInto<ServiceName, Error = Invalid>,
    {
        if let Some(pick) = self.pick_from_memory(service.as_ref()) {
            return Ok(pick);
        }
        let service = service.try_into()?;
        let balancer = self.shared_balancer(&service);
        if let Ok(pick) = balancer.pick() {
            return Ok(pick);
        }
        balancer.ready().await?;
        balancer.pick()
    }

    /// An instance for a key; see [`Balancer::pick_for`].
    ///
    /// # Errors
    /// The same as for [`discover_service`](Self::discover_service).
    pub async fn pick_for<N>(&self, service: N, key: Key) -> Result<Pick, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let balancer = self.shared_balancer(&service.try_into()?);
        if let Ok(pick) = balancer.pick_for(key) {
            return Ok(pick);
        }
        balancer.ready().await?;
        balancer.pick_for(key)
    }

    /// An instance, if picking one needs neither waiting nor a lock: the service is already watched and
    /// has usable instances. `None` says nothing about the service; [`pick`](Self::pick) does.
    ///
    /// For callers that hold a lock which a [`Strategy`] may need, such as an interpreter's.
    #[inline]
    pub fn try_pick(&self, service: &str) -> Option<Pick> {
        self.with_live_balancer(service, Balancer::try_pick)
    }

    /// A balancer of one service. Hold one if picks are frequent: its picks don't look up the name.
    ///
    /// # Errors
    /// If the name is not valid.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn balancer<N>(&self, service: N) -> Result<Balancer, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let strategy = (self.inner.strategy.load())();
        Ok(Balancer::with_options(
            &self.inner.directory,
            &service.try_into()?,
            strategy,
            self.balancer_options(),
        ))
    }

    /// Switches to another strategy, by its name in a configuration; see
    /// [`strategy_named`](crate::balance::strategy_named). Requests in flight, latencies and ejections
    /// are kept. Balancers returned by [`balancer`](Self::balancer) are not affected; see
    /// [`Balancer::set_strategy`].
    ///
    /// # Errors
    /// If there is no strategy of that name.
    pub fn set_strategy_named(&self, name: &str) -> Result<(), Error> {
        self.replace_strategy(factory_named(name)?);
        Ok(())
    }

    /// Like [`set_strategy_named`](Self::set_strategy_named), with a function that makes a strategy for
    /// each service.
    pub fn set_strategy<S: Strategy>(&self, make: impl Fn() -> S + Send + Sync + 'static) {
        self.replace_strategy(Arc::new(move || Box::new(make())));
    }

    fn replace_strategy(&self, strategy: StrategyFactory) {
        self.inner.strategy.store(Arc::new(Arc::clone(&strategy)));
        let selected = self.inner.selected.values();
        let selected = selected.iter().flat_map(|balancers| balancers.values());
        for balancer in self.inner.balancers.values().iter().chain(selected) {
            balancer.set_strategy(strategy());
        }
    }

    /// Explains for each instance of a service whether it is picked, and why.
    ///
    /// # Errors
    /// The same as for [`Directory::lookup`].
    pub async fn explain<N>(&self, service: N) -> Result<Explanation, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let balancer = self.shared_balancer(&service.try_into()?);
        balancer.ready().await?;
        Ok(balancer.explain())
    }

    /// Waits until a service has an instance that accepts new requests, without a time limit; use
    /// [`tokio::time::timeout`] to set one.
    ///
    /// # Errors
    /// If the name is not valid.
    pub async fn wait_for<N>(&self, service: N) -> Result<Arc<Snapshot>, Error>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        let mut subscription = self.inner.directory.subscribe(&service.try_into()?);
        loop {
            let snapshot = subscription.changed().await;
            let is_usable = match &self.selector {
                None => snapshot.usable().is_ok(),
                Some(selector) => snapshot.usable_matching(selector).is_ok(),
            };
            if is_usable {
                return Ok(snapshot);
            }
        }
    }

    /// The names of all services.
    ///
    /// # Errors
    /// If the provider fails and has never answered.
    pub async fn services(&self) -> Result<Arc<Catalog>, Error> {
        self.inner.directory.catalog().await
    }

    /// The directory of the client: snapshots, subscriptions, freshness.
    pub fn directory(&self) -> &Directory {
        &self.inner.directory
    }

    /// The client's provider.
    pub fn provider(&self) -> &Arc<dyn Provider> {
        self.inner.directory.provider()
    }

    /// Deregisters the instance that the client was built with, and waits until the registry has
    /// confirmed it. The client and its clones can still look services up afterwards. Call it at the end
    /// of a program, before the server stops accepting connections:
    ///
    /// ```no_run
    /// # async fn example(client: waypost::ServiceDiscoveryClient) -> Result<(), waypost::Error> {
    /// # async fn stop_the_server() {}
    /// # use std::time::Duration;
    /// tokio::signal::ctrl_c().await.ok();
    /// client.close().await?;
    /// // Until every client has seen the deregistration.
    /// tokio::time::sleep(Duration::from_millis(500)).await;
    /// stop_the_server().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the registry could not be reached within 5 s. Its health checks then remove the instance.
    pub async fn close(&self) -> Result<(), Error> {
        match &self.inner.registrar {
            Some(registrar) => registrar.deregister().await,
            None => Ok(()),
        }
    }

    /// The registrar of the registration that the client was built with, if any.
    pub fn registrar(&self) -> Option<&Registrar> {
        self.inner.registrar.as_ref()
    }

    /// The fast path: picks if the service is already watched and has usable instances.
    #[inline]
    fn pick_from_memory(&self, service: &str) -> Option<Pick> {
        self.with_live_balancer(service, |balancer| balancer.pick().ok())
    }

    /// Calls `pick` with the shared balancer of a service, if there is one.
    #[inline]
    fn with_live_balancer<T>(
        &self,
        service: &str,
        pick: impl FnOnce(&Balancer) -> Option<T>,
    ) -> Option<T> {
        let Some(selector) = &self.selector else {
            let shard = self.inner.balancers.shard(service);
            let balancer = shard.get(service).filter(|balancer| balancer.is_live())?;
            return pick(balancer);
        };
        let shard = self.inner.selected.shard(service);
        let balancer = shard.get(service)?.get(selector);
        pick(balancer.filter(|balancer| balancer.is_live())?)
    }

    fn balancer_options(&self) -> BalancerOptions {
        BalancerOptions {
            selector: self.selector.clone(),
            ..self.inner.balancing.clone()
        }
    }

    /// The balancer that all callers with this selector share; starts one if there is none.
    pub(crate) fn shared_balancer(&self, service: &ServiceName) -> Arc<Balancer> {
        let running = self.inner.running_balancer(service, self.selector.as_ref());
        if let Some(balancer) = running {
            return balancer;
        }
        let mut shared = Arc::new(Balancer::unpinned(
            &self.inner.directory,
            service,
            (self.inner.strategy.load())(),
            self.balancer_options(),
        ));
        // If another thread was first, its balancer is used: round robin needs a single position.
        let Some(selector) = &self.selector else {
            self.inner.balancers.change(service.as_str(), |shard| {
                if let Some(first) = shard.get(service).filter(|first| first.is_live()) {
                    shared = Arc::clone(first);
                    return None;
                }
                let mut shard = shard.clone();
                shard.retain(|_, balancer| !balancer.is_closed());
                shard.insert(service.clone(), Arc::clone(&shared));
                Some(shard)
            });
            return shared;
        };
        self.inner.selected.change(service.as_str(), |shard| {
            let of_service = shard.get(service);
            let first = of_service.and_then(|balancers| balancers.get(selector));
            if let Some(first) = first.filter(|first| first.is_live()) {
                shared = Arc::clone(first);
                return None;
            }
            let mut balancers = of_service
                .map(|balancers| (**balancers).clone())
                .unwrap_or_default();
            balancers.retain(|_, balancer| !balancer.is_closed());
            if balancers.len() >= MAX_SELECTORS {
                let evicted = balancers
                    .keys()
                    .nth(fastrand::usize(..MAX_SELECTORS))
                    .cloned();
                evicted.map(|evicted| balancers.remove(&evicted));
            }
            balancers.insert(Arc::clone(selector), Arc::clone(&shared));
            let mut shard = shard.clone();
            shard.retain(|_, others| others.values().any(|balancer| !balancer.is_closed()));
            shard.insert(service.clone(), Arc::new(balancers));
            Some(shard)
        });
        shared
    }
}

impl Inner {
    fn running_balancer(
        &self,
        service: &ServiceName,
        selector: Option<&Arc<Selector>>,
    ) -> Option<Arc<Balancer>> {
        let balancer = match selector {
            None => self.balancers.shard(service.as_str()).get(service).cloned(),
            Some(selector) => {
                let shard = self.selected.shard(service.as_str());
                shard.get(service)?.get(selector).cloned()
            }
        };
        balancer.filter(|balancer| balancer.is_live())
    }
}

impl fmt::Debug for ServiceDiscoveryClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceDiscoveryClient")
            .field("directory", &self.inner.directory)
            .field("selector", &self.selector)
            .field("registrar", &self.inner.registrar)
            .finish_non_exhaustive()
    }
}

/// Builds a [`ServiceDiscoveryClient`].
#[must_use = "call `build` to make the client"]
pub struct ClientBuilder {
    provider: Option<Arc<dyn Provider>>,
    environment: Option<Environment>,
    options: Option<DirectoryOptions>,
    strategy: Option<Result<StrategyFactory, Invalid>>,
    balancing: Option<BalancerOptions>,
    outlier_detection: Option<OutlierDetection>,
    active_check: Option<ActiveCheck>,
    registration: Option<ServiceRegistration>,
}

impl ClientBuilder {
    /// Uses this provider. The process's environment is then not read, neither for load balancing nor
    /// for outages, unless it is passed to [`environment`](Self::environment).
    pub fn provider(self, provider: impl Provider) -> Self {
        self.shared_provider(Arc::new(provider))
    }

    /// Like [`provider`](Self::provider), for a provider that is shared.
    pub fn shared_provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Uses the Consul agent or the embedded registry at this host and port. Everything else about
    /// it, such as the token, comes from the environment.
    #[cfg(feature = "consul")]
    pub fn registry(mut self, host: &str, port: u16) -> Self {
        let environment = self
            .environment
            .unwrap_or_else(Environment::of_this_process);
        self.environment = Some(
            environment
                .with("SERVICE_DISCOVERY_PROVIDER", "consul")
                .with("CONSUL_HTTP_ADDR", "")
                .with("CONSUL_HOST", host)
                .with("CONSUL_PORT", &port.to_string()),
        );
        self
    }

    /// Reads the settings from this environment instead of the process's own; see
    /// [`settings`](crate::settings).
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// Sets the options of the directory, in place of those from the environment.
    pub fn directory_options(mut self, options: DirectoryOptions) -> Self {
        self.options = Some(options);
        self
    }

    /// Sets the strategy: `make` is called once per service. Round robin by default.
    pub fn strategy<S: Strategy>(mut self, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        self.strategy = Some(Ok(Arc::new(move || Box::new(make()))));
        self
    }

    /// Sets the strategy by its name in a configuration, such as `round_robin`;
    /// [`strategy_named`](crate::balance::strategy_named) lists all names.
    pub fn strategy_named(mut self, name: &str) -> Self {
        self.strategy = Some(factory_named(name));
        self
    }

    /// Sets how weights are adjusted before the strategy sees them: zone, slow start, subset.
    pub fn balancing(mut self, options: BalancerOptions) -> Self {
        self.balancing = Some(options);
        self
    }

    /// Sets when endpoints are ejected for failed requests. On by default.
    pub fn outlier_detection(mut self, options: OutlierDetection) -> Self {
        self.outlier_detection = Some(options);
        self
    }

    /// Makes this process check the endpoints of the services in use. Off by default.
    pub fn active_check(mut self, check: ActiveCheck) -> Self {
        self.active_check = Some(check);
        self
    }

    /// Registers the application until the client is dropped or
    /// [closed](ServiceDiscoveryClient::close). If the provider can't register services, this is logged,
    /// and the client still works.
    pub fn register(mut self, registration: ServiceRegistration) -> Self {
        self.registration = Some(registration);
        self
    }

    /// Takes the registration out, for the blocking client, which starts the registrar itself.
    pub(crate) fn take_registration(&mut self) -> Option<ServiceRegistration> {
        self.registration.take()
    }

    /// Builds the client and starts to register, if a registration was set.
    ///
    /// # Errors
    /// If a setting or the registration is invalid. An unreachable registry is not an error.
    ///
    /// # Panics
    /// Outside a Tokio runtime, if a registration was set.
    pub fn build(self) -> Result<ServiceDiscoveryClient, Error> {
        let settings = match (&self.provider, self.environment) {
            (Some(_), None) => Settings::new(Environment::default())?,
            (_, Some(environment)) => Settings::new(environment)?,
            (None, None) => Settings::of_this_process()?,
        };
        let provider = match self.provider {
            Some(provider) => provider,
            None => settings.provider()?,
        };
        let mut options = match self.options {
            Some(options) => options,
            None => settings.directory_options()?,
        };
        if let Some(outlier_detection) = self.outlier_detection {
            options.outlier_detection = outlier_detection;
        }
        if self.active_check.is_some() {
            options.active_check = self.active_check;
        }
        let registrar = match self.registration {
            Some(registration) => {
                Registrar::start_if_supported(Arc::clone(&provider), registration)?
            }
            None => None,
        };
        let strategy = match self.strategy {
            Some(strategy) => strategy?,
            None => settings.strategy()?.unwrap_or_else(round_robin),
        };
        let balancing = self
            .balancing
            .unwrap_or_else(|| settings.balancer_options());
        let directory = Directory::with_options(provider, options);
        Ok(ServiceDiscoveryClient::assemble(
            directory, strategy, balancing, registrar,
        ))
    }
}

/// The default strategy.
fn round_robin() -> StrategyFactory {
    Arc::new(|| Box::new(RoundRobin::new()))
}
