//! Consul, and whatever else speaks its HTTP API, such as the embedded registry.

mod http;
mod read;
mod settings;
mod wire;
mod write;

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture};

use self::{
    http::Http,
    read::{Blocking, blocking_reads},
    settings::Address,
};
use super::{Answer, Heartbeat, NamesWatch, Provider, Registry, Report, Watch};
use crate::{
    error::{Error, ProviderError},
    model::{InstanceId, ServiceName},
    registrar::Registration,
    settings::Environment,
};

/// Finds and registers services with a Consul agent over its HTTP API.
///
/// Reads are blocking queries on `/v1/health/service/:name`, by the rules of Consul's documentation
/// ("Blocking Queries"): a change is known as soon as the agent knows it, and an idle service costs
/// about one request a minute. Instances of every health are read, so that "none healthy" and "no
/// instances" can be told apart.
///
/// | Consul | instance |
/// |---|---|
/// | `Service.ID` | id |
/// | `Service.Address`, else `Node.Address` | host |
/// | the worst of `Checks` | health: passing, warning or critical; unchecked without any |
/// | `Service.Weights.Passing`, or `.Warning` when a check warns; metadata `weight` outweighs both | weight |
/// | metadata `version`, `zone`, `scheme`, `path`, `port_<name>` | the fields of these names; they stay in the metadata too |
///
/// A port of 0 means, as in a URL without one, the usual port of the scheme.
///
/// ```no_run
/// # use waypost::ConsulProvider;
/// let consul = ConsulProvider::new("http://consul.example:8500")?;
/// let secured = ConsulProvider::builder()
///     .address("https://consul.example:8501")
///     .token("anonymous")
///     .build()?;
/// # Ok::<(), waypost::Error>(())
/// ```
#[derive(Clone)]
pub struct ConsulProvider {
    http: Arc<Http>,
    wait: Duration,
}

impl ConsulProvider {
    /// The agent at this address: `host`, `host:port` or a URL.
    ///
    /// # Errors
    /// If the address is not valid.
    pub fn new(address: &str) -> Result<Self, Error> {
        Self::builder().address(address).build()
    }

    /// Begins a provider. The address is `http://localhost:8500` unless set.
    pub fn builder() -> ConsulBuilder {
        ConsulBuilder {
            address: "localhost".into(),
            token: None,
            datacenter: None,
            wait: Duration::from_secs(60),
        }
    }

    /// The agent that the environment names; see [`settings`](crate::settings).
    ///
    /// # Errors
    /// If a variable is bad.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        let mut builder = Self::builder();
        builder.address = Address::from_environment(environment)?.to_string();
        let token = ["CONSUL_TOKEN", "CONSUL_HTTP_TOKEN"];
        builder.token = token
            .iter()
            .find_map(|name| environment.get(name))
            .map(str::to_owned);
        builder.build()
    }

    fn blocking(&self, path: String) -> Blocking {
        Blocking {
            http: Arc::clone(&self.http),
            path,
            wait: self.wait,
        }
    }
}

impl fmt::Debug for ConsulProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulProvider")
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

impl Provider for ConsulProvider {
    fn describe(&self) -> Arc<str> {
        self.http.describe()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let service = service.clone();
        // A service's name needs no escaping in a path; see `ServiceName`.
        blocking_reads(self.blocking(format!("/v1/health/service/{service}")))
            .map_ok(move |entries: Vec<wire::Entry>| {
                let instances = wire::instances(&service, entries);
                match instances.is_empty() {
                    // Consul doesn't tell a service without instances from one that it has never
                    // heard of; the directory remembers.
                    true => Answer::Unknown,
                    false => Answer::Instances(instances),
                }
            })
            .boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        blocking_reads(self.blocking("/v1/catalog/services".into()))
            .map_ok(|services: BTreeMap<String, Vec<String>>| {
                let names = services
                    .keys()
                    .filter_map(|name| ServiceName::new(name).ok());
                names.collect()
            })
            .boxed()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

impl Registry for ConsulProvider {
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        write::register(&self.http, registration).boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        write::deregister(&self.http, id).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: Report,
    ) -> BoxFuture<'a, Result<Heartbeat, ProviderError>> {
        write::heartbeat(&self.http, registration, report).boxed()
    }

    fn local_address(&self) -> Option<IpAddr> {
        self.http.local_address()
    }
}

/// Puts a [`ConsulProvider`] together.
#[derive(Clone)]
#[must_use = "a provider comes into being with `build`"]
pub struct ConsulBuilder {
    address: String,
    token: Option<String>,
    datacenter: Option<String>,
    wait: Duration,
}

impl ConsulBuilder {
    /// The agent's address: `host`, `host:port`, or a URL with `http` or `https`.
    pub fn address(mut self, address: &str) -> Self {
        self.address = address.to_owned();
        self
    }

    /// The ACL token, sent as a header and never shown.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// The datacenter to ask; the agent's own unless set.
    pub fn datacenter(mut self, datacenter: &str) -> Self {
        self.datacenter = Some(datacenter.to_owned());
        self
    }

    /// How long a blocking query waits for a change: 1 minute unless set, at most 10. A longer
    /// wait costs fewer requests; a shorter one notices a dead connection sooner.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait.clamp(Duration::from_secs(1), Duration::from_secs(600));
        self
    }

    /// Makes the provider. Nothing is sent yet.
    ///
    /// # Errors
    /// If the address or the token is not valid.
    pub fn build(self) -> Result<ConsulProvider, Error> {
        let address: Address = self.address.parse()?;
        Ok(ConsulProvider {
            http: Arc::new(Http::new(&address, self.token, self.datacenter)?),
            wait: self.wait,
        })
    }
}
