//! Consul, and whatever else speaks its HTTP API, such as the embedded registry.

mod address;
mod agents;
mod builder;
mod content;
mod definition;
mod http;
mod permission;
mod places;
mod read;
mod tls;
mod token;
mod wire;
mod write;

#[cfg(feature = "fuzz")]
#[doc(hidden)]
pub mod fuzz {
    pub use crate::wire::read_answer;
}

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use waypost_core::provider::{
    HeartbeatResponse, InstanceReport, NamesWatch, Provider, Registry, ServiceAnswer, Watch,
};
use waypost_core::{Environment, Error, InstanceId, ProviderError, Registration, ServiceName};

use self::agents::Agents;
use self::builder::Reads;
use self::content::{Instances, Names};
use self::permission::Need;
use self::read::{Blocking, blocking_reads};
use self::wire::Reading;

pub use builder::{Consistency, ConsulBuilder};

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
/// | tag `version=…` | version, where the metadata has none |
/// | metadata `version`, `zone`, `scheme`, `path`, `port_<name>` | the fields of these names; they stay in the metadata too |
///
/// A port of 0 means, as in a URL without one, the usual port of the scheme.
///
/// A token that may not see a service gets an empty answer from Consul, not an error. So an empty
/// answer is believed only if the token may see what was asked for; otherwise it is
/// [`NotAuthorised`](waypost_core::ProviderErrorKind::NotAuthorised), with the rule that is missing.
///
/// ```no_run
/// # use waypost_consul::ConsulProvider;
/// let consul = ConsulProvider::new("http://consul.example:8500")?;
/// let secured = ConsulProvider::builder()
///     .address("https://consul.example:8501")
///     .token("anonymous")
///     .build()?;
/// # Ok::<(), waypost_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ConsulProvider {
    agents: Arc<Agents>,
    description: Arc<str>,
    reads: Reads,
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
        ConsulBuilder::default()
    }

    /// The agent that the environment names.
    ///
    /// # Errors
    /// If a variable is bad.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        ConsulBuilder::from_environment(environment)?.build()
    }

    fn blocking(&self, path: String, query: Vec<(String, String)>, needs: Vec<Need>) -> Blocking {
        Blocking {
            agents: Arc::clone(&self.agents),
            path,
            query,
            wait: self.reads.wait,
            needs,
        }
    }
}

impl fmt::Debug for ConsulProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulProvider")
            .field("agents", &self.agents)
            .field("reads", &self.reads)
            .finish_non_exhaustive()
    }
}

impl Provider for ConsulProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.description)
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        // A service's name needs no escaping in a path; see `ServiceName`.
        let path = format!("/v1/health/service/{service}");
        let needs = vec![Need::read_service(service.as_str()), Need::read_all_nodes()];
        let nothing = Instances {
            reading: Reading {
                service: service.clone(),
                tagged_address: self.reads.tagged_address.clone(),
                passing_only: self.reads.passing_only,
            },
            answer: ServiceAnswer::Unknown,
        };
        blocking_reads(self.blocking(path, self.reads.of_service(), needs), nothing)
            .map_ok(|instances| instances.answer)
            .boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let path = "/v1/catalog/services".into();
        let needs = vec![Need::read_all_services()];
        blocking_reads(
            self.blocking(path, self.reads.of_names(), needs),
            Names::default(),
        )
        .map_ok(|names| names.0)
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
        report: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        write::register(self.agents.first(), registration, report).boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        write::deregister(self.agents.first(), id).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
        write::heartbeat(self.agents.first(), registration, report).boxed()
    }

    fn set_maintenance<'a>(
        &'a self,
        registration: &'a Registration,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        write::set_maintenance(self.agents.first(), registration, reason).boxed()
    }

    fn local_address(&self) -> Option<IpAddr> {
        self.agents.first().local_address()
    }
}
