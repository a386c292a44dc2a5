//! [`ConsulProvider`] and its builder.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use waypost_core::provider::{
    CheckResult, HeartbeatResponse, IgnoredValues, InstanceReport, NamesWatch, Provider, Registry,
    Watch,
};
use waypost_core::{
    ConfigError, Environment, Error, InstanceId, Invalid, ProviderError, ProviderErrorKind,
    Registration, ServiceName,
};

use crate::acl::AclRule;
use crate::address::Address;
use crate::agent_client::AgentClient;
use crate::agent_report::AgentReport;
use crate::agents::Agents;
use crate::blocking_query::{BlockingQuery, Decoder};
use crate::query_options::{Consistency, QueryOptions};
use crate::resolver::AgentResolver;
use crate::responses::{CatalogDecoder, HealthDecoder, IgnoredNames};
use crate::tls::TlsOptions;
use crate::token::TokenSource;
use crate::validation::validate_metadata;
use crate::{definition, diagnosis, registration};

/// Finds and registers services with a Consul agent over its HTTP API.
///
/// A service is watched by blocking queries on `/v1/health/service/:name` (Consul's documentation,
/// "Blocking Queries"), so a change is known as soon as the agent knows it, and a service without
/// changes costs about one request a minute. Unhealthy instances are read as well, to distinguish "no
/// healthy instances" from "no instances".
///
/// | Consul | instance |
/// |---|---|
/// | `Service.ID` | id |
/// | `Service.Address`, else `Node.Address` | host |
/// | the worst status of `Checks` | health: passing, warning or critical; unchecked without checks |
/// | metadata `weight`, else `Service.Weights.Passing`, or `.Warning` while a check warns | weight |
/// | metadata `version`, else the tag `version=…` | version |
/// | metadata `zone`, `scheme`, `path`, `port_<name>` | the properties of these names; they stay in the metadata |
///
/// A port of 0 means the default port of the scheme. Other programs may use the same metadata keys, so
/// a value that is not valid for its property is ignored with one warning, and the instance is kept.
///
/// If a token may not read a service, Consul's response is empty instead of an error. An empty
/// response is therefore trusted only after the agent has confirmed that the token may read the
/// service; otherwise the watch fails with
/// [`NotAuthorised`](waypost_core::ProviderErrorKind::NotAuthorised) and names the missing rule.
///
/// Clones share their connections.
///
/// ```no_run
/// # use waypost_consul::ConsulProvider;
/// let consul = ConsulProvider::new("http://consul.example:8500")?;
/// let secured = ConsulProvider::builder()
///     .address("https://consul.example:8501")
///     .token_file("/run/secrets/consul-token")
///     .build()?;
/// # Ok::<(), waypost_core::Error>(())
/// ```
#[derive(Clone)]
pub struct ConsulProvider {
    agents: Arc<Agents>,
    description: Arc<str>,
    query_options: QueryOptions,
    ignored: Arc<IgnoredValues>,
    /// Those of the latest list of services.
    ignored_names: Arc<IgnoredNames>,
}

impl ConsulProvider {
    /// A provider for the agent at this address: `host`, `host:port` or a URL.
    ///
    /// # Errors
    /// If the address is not valid.
    pub fn new(address: &str) -> Result<Self, Error> {
        Self::builder().address(address).build()
    }

    /// A builder with the default options. The default address is `http://localhost:8500`.
    pub fn builder() -> ConsulBuilder {
        ConsulBuilder::default()
    }

    /// A provider with the options that the environment sets; see
    /// [`ConsulBuilder::from_environment`].
    ///
    /// # Errors
    /// If a variable is not valid, or a file that it names can't be used.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        ConsulBuilder::from_environment(environment)?.build()
    }

    /// The state of each agent, in the order of the addresses, for diagnosis. Makes one attempt for each.
    pub async fn agent_reports(&self) -> Vec<Result<AgentReport, ProviderError>> {
        let mut reports = Vec::new();
        for agent in self.agents.all() {
            reports.push(AgentReport::of(&self.agents, agent).await);
        }
        reports
    }

    fn query<D: Decoder>(
        &self,
        path: String,
        params: Vec<(String, String)>,
        required_rules: Vec<AclRule>,
        decoder: D,
    ) -> BlockingQuery<D> {
        BlockingQuery {
            agents: Arc::clone(&self.agents),
            path,
            params,
            wait: self.query_options.wait,
            required_rules,
            decoder,
        }
    }
}

impl fmt::Debug for ConsulProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsulProvider")
            .field("agents", &self.agents)
            .field("query_options", &self.query_options)
            .finish_non_exhaustive()
    }
}

impl Provider for ConsulProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.description)
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        // A `ServiceName` needs no escaping in a path.
        let path = format!("/v1/health/service/{service}");
        let params = self.query_options.health_params();
        let rules = vec![
            AclRule::read_service(service.as_str()),
            AclRule::read_all_nodes(),
        ];
        let decoder = HealthDecoder {
            service: service.clone(),
            tagged_address: self.query_options.tagged_address.clone(),
            passing_only: self.query_options.passing_only,
            ignored: Arc::clone(&self.ignored),
        };
        self.query(path, params, rules, decoder).watch()
    }

    fn watch_names(&self) -> NamesWatch {
        let path = "/v1/catalog/services".to_owned();
        let params = self.query_options.catalog_params();
        let rules = vec![AclRule::read_all_services()];
        let decoder = CatalogDecoder {
            ignored: Arc::clone(&self.ignored_names),
        };
        self.query(path, params, rules, decoder).watch()
    }

    fn ignored_names(&self) -> Vec<Invalid> {
        self.ignored_names.get()
    }

    fn check_results<'a>(
        &'a self,
        service: &'a ServiceName,
    ) -> BoxFuture<'a, Result<Vec<CheckResult>, ProviderError>> {
        diagnosis::check_results(self.agents.current().1, service).boxed()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

impl Registry for ConsulProvider {
    fn accepts(&self, registration: &Registration) -> Result<(), ProviderError> {
        let mut checks = registration.checks().iter();
        if let Some(check) = checks.find(|check| !definition::supports(check.kind())) {
            return Err(ProviderError::unsupported(
                Arc::clone(&self.description),
                format!("checks of this kind are not supported: {:?}", check.kind()),
            ));
        }
        let metadata = definition::metadata(registration.instance());
        validate_metadata(&metadata).map_err(|problem| {
            let kind = ProviderErrorKind::Rejected;
            ProviderError::new(Arc::clone(&self.description), kind, problem)
        })
    }

    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        report: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        registration::register(self.agents.first(), registration, report).boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        registration::deregister(self.agents.first(), id).boxed()
    }

    fn is_registered<'a>(
        &'a self,
        id: &'a InstanceId,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        diagnosis::is_registered(self.agents.first(), id).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
        registration::heartbeat(self.agents.first(), registration, report).boxed()
    }

    fn set_maintenance<'a>(
        &'a self,
        registration: &'a Registration,
        reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        registration::set_maintenance(self.agents.first(), registration, reason).boxed()
    }

    fn local_address(&self) -> Option<IpAddr> {
        self.agents.first().local_address()
    }
}

/// Builds a [`ConsulProvider`].
///
/// Options that aren't set have Consul's defaults. [`from_environment`](Self::from_environment) reads
/// the variables of Consul's own tools.
#[derive(Clone, Debug)]
#[must_use = "call `build` to get the provider"]
pub struct ConsulBuilder {
    addresses: Vec<String>,
    token: TokenSource,
    tls: TlsOptions,
    query_options: QueryOptions,
    namespace: Option<String>,
    partition: Option<String>,
    connections: usize,
}

impl Default for ConsulBuilder {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            token: TokenSource::None,
            tls: TlsOptions::default(),
            query_options: QueryOptions::default(),
            namespace: None,
            partition: None,
            connections: 80,
        }
    }
}

impl ConsulBuilder {
    /// A builder with the options that the environment sets. `docs/consul.md` lists the variables.
    ///
    /// # Errors
    /// If a variable is not valid.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        let text = |name: &str| environment.get(name).map(str::to_owned);
        let path = |name: &str| environment.get(name).map(PathBuf::from);
        let addresses = Address::from_environment(environment)?;
        let set = ["CONSUL_TOKEN", "CONSUL_HTTP_TOKEN"];
        let set = set.into_iter().find_map(|name| Some((name, text(name)?)));
        let token = match set {
            Some((name, token)) => TokenSource::variable(name, token)?,
            None => path("CONSUL_HTTP_TOKEN_FILE").map_or(TokenSource::None, TokenSource::File),
        };
        Ok(Self {
            addresses: addresses.iter().map(Address::to_string).collect(),
            token,
            tls: TlsOptions {
                ca_file: path("CONSUL_CACERT"),
                ca_folder: path("CONSUL_CAPATH"),
                client_cert: path("CONSUL_CLIENT_CERT"),
                client_key: path("CONSUL_CLIENT_KEY"),
                server_name: text("CONSUL_TLS_SERVER_NAME"),
                skip_verify: environment.flag("CONSUL_HTTP_SSL_VERIFY")? == Some(false),
            },
            namespace: text("CONSUL_NAMESPACE"),
            partition: text("CONSUL_PARTITION"),
            query_options: QueryOptions {
                wait: wait_from_environment(environment)?,
                ..QueryOptions::default()
            },
            ..Self::default()
        })
    }

    /// Adds the address of an agent: `host`, `host:port`, a URL with `http` or `https`, or
    /// `unix:///path/to/socket`. With several agents, services are registered with the first and
    /// looked up with the first that responds.
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    /// Sets the ACL token. It is sent as a header and never displayed.
    pub fn token(mut self, token: &str) -> Self {
        self.token = TokenSource::Value(token.to_owned());
        self
    }

    /// Sets a file with the ACL token. A changed token takes effect with the next request.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = TokenSource::File(path.into());
        self
    }

    /// Sets a file with CA certificates in PEM to trust instead of the system's.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(path.into());
        self
    }

    /// Sets a folder of files with CA certificates in PEM to trust instead of the system's.
    pub fn ca_folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_folder = Some(path.into());
        self
    }

    /// Sets the client certificate and its private key, both in PEM, for mutual TLS.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls.client_cert = Some(certificate.into());
        self.tls.client_key = Some(key.into());
        self
    }

    /// Sets the name to expect in the agent's certificate. Default: the host of its address.
    pub fn tls_server_name(mut self, name: &str) -> Self {
        self.tls.server_name = Some(name.to_owned());
        self
    }

    /// Sets whether to verify the agent's certificate. Default: `true`. Without verification, an
    /// attacker on the network can read the token.
    pub fn tls_verify(mut self, verify: bool) -> Self {
        self.tls.skip_verify = !verify;
        self
    }

    /// Sets the datacenter to look services up in. Default: the agent's.
    pub fn datacenter(mut self, datacenter: &str) -> Self {
        self.query_options.datacenter = Some(datacenter.to_owned());
        self
    }

    /// Sets the namespace of all requests (Consul Enterprise).
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Sets the admin partition of all requests (Consul Enterprise).
    pub fn partition(mut self, partition: &str) -> Self {
        self.partition = Some(partition.to_owned());
        self
    }

    /// Sets how up to date a look-up must be.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.query_options.consistency = consistency;
        self
    }

    /// Sets whether an instance with a warning counts as critical. Default: `false`, so that it takes
    /// traffic, as in Consul's DNS.
    pub fn passing_only(mut self, passing_only: bool) -> Self {
        self.query_options.passing_only = passing_only;
        self
    }

    /// Selects instances with this tag. With several tags, an instance must have all of them.
    pub fn tag(mut self, tag: &str) -> Self {
        self.query_options.tags.push(tag.to_owned());
        self
    }

    /// Selects instances by an expression such as `Service.Meta.team == "search"` ("Filtering" in
    /// Consul's API documentation).
    pub fn filter(mut self, expression: &str) -> Self {
        self.query_options.filter = Some(expression.to_owned());
        self
    }

    /// Selects instances on nodes with this metadata.
    pub fn node_meta(mut self, key: &str, value: &str) -> Self {
        let entry = (key.to_owned(), value.to_owned());
        self.query_options.node_meta.push(entry);
        self
    }

    /// Makes Consul sort instances by estimated round-trip time from this node; `_agent` is the
    /// agent's node.
    pub fn near(mut self, node: &str) -> Self {
        self.query_options.near = Some(node.to_owned());
        self
    }

    /// Selects the tagged address, such as `wan`, of each instance that has it, or else that of its
    /// node. Instances without either keep their address.
    pub fn tagged_address(mut self, tag: &str) -> Self {
        self.query_options.tagged_address = Some(tag.to_owned());
        self
    }

    /// Sets how long a blocking query waits for a change, from 1 s to 10 min. Default: 1 min. A
    /// longer wait costs fewer requests; with a shorter one a dead connection is noticed sooner.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.query_options.wait = wait.clamp(MIN_WAIT, MAX_WAIT);
        self
    }

    /// Sets how many connections may wait for changes at the same time. Default: 80. Each watched
    /// service needs one, and an agent closes connections of one client beyond
    /// `limits.http_max_conns_per_client` (default 200). If more services are watched, they share the
    /// connections, and a change may be noticed up to 10 s later; to avoid that, raise both limits. After a
    /// program has ended, an agent counts its connections until their waits are over, which is up to 17/16 of
    /// [`wait`](Self::wait). So the agent's limit should be at least twice this number plus 40.
    ///
    /// All other requests (first reads, registrations, heartbeats) share 32 more connections, whatever
    /// the number of services, and up to 32 are kept idle.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Builds the provider. Nothing is sent yet.
    ///
    /// # Errors
    /// If an address, the token or a certificate is not valid.
    pub fn build(self) -> Result<ConsulProvider, Error> {
        let token = Arc::new(self.token.load()?);
        let mut tenancy = Vec::new();
        tenancy.extend(self.namespace.map(|name| ("ns", name)));
        tenancy.extend(self.partition.map(|name| ("partition", name)));
        let mut addresses = self.addresses;
        if addresses.is_empty() {
            addresses.push("localhost".into());
        }
        let mut all = Vec::with_capacity(addresses.len());
        for address in &addresses {
            let address: Address = address.parse()?;
            let is_plain = matches!(address, Address::Tcp { https: false, .. });
            if is_plain && self.tls.client_cert.is_some() {
                let problem = "a client certificate is set, but this address is not https://";
                return Err(ConfigError::new(address.to_string(), problem).into());
            }
            all.push(AgentClient::new(
                address,
                AgentResolver::system(),
                Arc::clone(&token),
                &self.tls,
                tenancy.clone(),
            )?);
        }
        let agents = Agents::new(all, self.connections);
        Ok(ConsulProvider {
            description: agents.describe(),
            agents: Arc::new(agents),
            query_options: self.query_options,
            ignored: Arc::default(),
            ignored_names: Arc::default(),
        })
    }
}

/// The shortest and the longest wait of a blocking query. The longest is Consul's own limit.
const MIN_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(600);

/// The wait that `CONSUL_WAIT` sets, or the default.
fn wait_from_environment(environment: &Environment) -> Result<Duration, ConfigError> {
    match environment.duration("CONSUL_WAIT")? {
        None => Ok(QueryOptions::default().wait),
        Some(wait) if (MIN_WAIT..=MAX_WAIT).contains(&wait) => Ok(wait),
        Some(_) => Err(ConfigError::new(
            "CONSUL_WAIT",
            "must be between 1s and 10m, Consul's limit",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_must_be_within_the_limits_of_consul() {
        for (wait, is_valid) in [
            ("999ms", false),
            ("1s", true),
            ("10m", true),
            ("601s", false),
        ] {
            let environment = Environment::from_iter([("CONSUL_WAIT", wait)]);
            let found = wait_from_environment(&environment);
            assert_eq!(found.is_ok(), is_valid, "{wait}: {found:?}");
        }
    }
}
