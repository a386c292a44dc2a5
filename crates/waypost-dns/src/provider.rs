//! [`DnsProvider`] and its builder.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use hickory_resolver::Resolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::sleep;
use waypost_core::provider::{NamesWatch, Provider, Watch};
use waypost_core::{ConfigError, Environment, Error, ProviderError, ServiceName};

use crate::query::{ATTEMPT_TIMEOUT, ATTEMPTS, Queries};

/// Finds services by DNS.
///
/// | option | records | instance |
/// |---|---|---|
/// | a [port](DnsBuilder::port) is set | A, else AAAA | each address, at that port |
/// | no port is set | SRV, and A or AAAA of the targets | each address of each target, at the record's port, with the record's weight |
///
/// Instances of an SRV priority other than the first have the weight 0: they are used if no others are
/// left. DNS reports no health, so all instances are unchecked; use outlier detection or active checks.
///
/// A service is looked up again when the records' time to live is over, but not before
/// [`min_refresh`](DnsBuilder::min_refresh) and not after [`max_refresh`](DnsBuilder::max_refresh).
/// `NXDOMAIN` means that the service is unknown; a name without such records has no instances. The names
/// of all services can't be listed, and services can't be registered.
///
/// Clones share the connections.
#[derive(Clone)]
pub struct DnsProvider {
    queries: Arc<Queries>,
    min_refresh: Duration,
    max_refresh: Duration,
}

impl DnsProvider {
    /// A builder with the default options: the system's servers and search domains, and SRV records.
    pub fn builder() -> DnsBuilder {
        DnsBuilder::default()
    }

    /// A provider with the options that the environment sets; see [`DnsBuilder::from_environment`].
    ///
    /// # Errors
    /// If a variable or the system's configuration is not valid.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        DnsBuilder::from_environment(environment)?.build()
    }
}

impl fmt::Debug for DnsProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsProvider")
            .field("description", &self.queries.description)
            .field("name", &self.queries.name)
            .field("port", &self.queries.port)
            .finish_non_exhaustive()
    }
}

impl Provider for DnsProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.queries.description)
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let state = (self.clone(), service.clone(), Duration::ZERO);
        stream::try_unfold(state, |(provider, service, wait)| async move {
            sleep(wait).await;
            let found = provider.queries.look_up(&service).await?;
            let wait = found.ttl.clamp(provider.min_refresh, provider.max_refresh);
            Ok(Some((found.answer, (provider, service, wait))))
        })
        .boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        let message = "DNS can't list the names of services; look them up one by one";
        let error = ProviderError::unsupported(self.describe(), message);
        stream::iter([Err(error)]).boxed()
    }
}

/// Builds a [`DnsProvider`].
#[derive(Clone, Debug)]
#[must_use = "call `build` to get the provider"]
pub struct DnsBuilder {
    servers: Vec<SocketAddr>,
    search: Option<Vec<String>>,
    name: String,
    port: Option<u16>,
    scheme: String,
    min_refresh: Duration,
    max_refresh: Duration,
    udp: bool,
}

impl Default for DnsBuilder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            search: None,
            name: SERVICE.to_owned(),
            port: None,
            scheme: "http".to_owned(),
            min_refresh: Duration::from_secs(1),
            max_refresh: Duration::from_secs(60),
            udp: false,
        }
    }
}

/// The placeholder for the service in the name to look up.
const SERVICE: &str = "{service}";

const SERVER: &str = "SERVICE_DISCOVERY_DNS_SERVER";
const SEARCH: &str = "SERVICE_DISCOVERY_DNS_SEARCH";
const NAME: &str = "SERVICE_DISCOVERY_DNS_NAME";
const PORT: &str = "SERVICE_DISCOVERY_DNS_PORT";
const SCHEME: &str = "SERVICE_DISCOVERY_DNS_SCHEME";
const UDP: &str = "SERVICE_DISCOVERY_DNS_UDP";
const MIN_REFRESH: &str = "SERVICE_DISCOVERY_DNS_MIN_REFRESH";
const MAX_REFRESH: &str = "SERVICE_DISCOVERY_DNS_MAX_REFRESH";

impl DnsBuilder {
    /// A builder with the options that the environment sets; `docs/dns.md` lists the variables.
    ///
    /// # Errors
    /// If a variable is not valid.
    pub fn from_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let mut builder = Self::default();
        let list = |name: &str| {
            let items = environment.get(name).unwrap_or_default().split(',');
            let items = items.map(str::trim).filter(|item| !item.is_empty());
            items.map(str::to_owned).collect::<Vec<_>>()
        };
        for server in list(SERVER) {
            builder.servers.push(parse_server(&server)?);
        }
        let search = list(SEARCH);
        builder.search = (!search.is_empty()).then_some(search);
        if let Some(name) = environment.get(NAME) {
            builder.name = name.to_owned();
        }
        if let Some(scheme) = environment.get(SCHEME) {
            builder.scheme = scheme.to_owned();
        }
        builder.port = environment.port(PORT)?;
        builder.udp = environment.flag(UDP)?.unwrap_or(false);
        if let Some(min) = environment.duration(MIN_REFRESH)? {
            builder = builder.min_refresh(min);
        }
        if let Some(max) = environment.duration(MAX_REFRESH)? {
            builder.max_refresh = max;
        }
        Ok(builder)
    }

    /// Adds a DNS server. By default the servers in `/etc/resolv.conf` are used.
    pub fn server(mut self, address: SocketAddr) -> Self {
        self.servers.push(address);
        self
    }

    /// Sets whether to query over UDP first, and over TCP only if a response is marked as truncated.
    /// Default: `false`, TCP alone. Some servers, among them Consul, leave records out of long UDP
    /// responses without saying so, and instances would be missing.
    pub fn udp(mut self, udp: bool) -> Self {
        self.udp = udp;
        self
    }

    /// Sets the domains that are appended, one after the other, to a name that has no dot at its end. By
    /// default they are those in `/etc/resolv.conf`, or none if a [server](Self::server) is set.
    pub fn search<T: Into<String>>(mut self, domains: impl IntoIterator<Item = T>) -> Self {
        self.search = Some(domains.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the name to look up, with `{service}` in place of the service, such as
    /// `{service}.service.consul` or `_http._tcp.{service}.demo.svc.cluster.local.`. Default:
    /// `{service}`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the port of all instances. A and AAAA records are then used instead of SRV records.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Sets the scheme of all instances. Default: `http`.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// Sets the shortest time between two look-ups of a service, whatever the time to live of its
    /// records. Default: 1 s. It is at least 10 ms.
    pub fn min_refresh(mut self, min: Duration) -> Self {
        self.min_refresh = min.max(Duration::from_millis(10));
        self
    }

    /// Sets the longest time between two look-ups of a service, whatever the time to live of its records.
    /// A change is noticed within this time. Default: 60 s.
    pub fn max_refresh(mut self, max: Duration) -> Self {
        self.max_refresh = max;
        self
    }

    /// Builds the provider. Nothing is sent yet.
    ///
    /// # Errors
    /// If an option is not valid, or if no server is set and `/etc/resolv.conf` is not usable.
    pub fn build(self) -> Result<DnsProvider, Error> {
        if !self.name.contains(SERVICE) {
            let problem = format!(
                "{:?} doesn't contain {SERVICE}, which stands for the service; use a form such as \
                 {SERVICE}.service.consul",
                self.name
            );
            return Err(ConfigError::new(NAME, problem).into());
        }
        parse_name(NAME, &self.name.replace(SERVICE, "service"))?;
        if self.min_refresh > self.max_refresh {
            let problem = format!("is shorter than {MIN_REFRESH}");
            return Err(ConfigError::new(MAX_REFRESH, problem).into());
        }
        let (system, mut options) = if self.servers.is_empty() {
            read_system_conf().map_err(|cause| ConfigError::new("/etc/resolv.conf", cause))?
        } else {
            let servers = self.servers.iter().map(|server| {
                let mut config = NameServerConfig::udp_and_tcp(server.ip());
                for connection in &mut config.connections {
                    connection.port = server.port();
                }
                config
            });
            let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
            (config, ResolverOpts::default())
        };
        let mut config = match &self.search {
            None => system,
            Some(domains) => {
                let domains = domains.iter().map(|domain| parse_name(SEARCH, domain));
                let domains = domains.collect::<Result<_, _>>()?;
                ResolverConfig::from_parts(None, domains, system.name_servers)
            }
        };
        for server in config.name_servers.iter_mut().filter(|_| !self.udp) {
            let is_tcp = |it: &ConnectionConfig| matches!(it.protocol, ProtocolConfig::Tcp);
            server.connections.retain(is_tcp);
        }
        options.timeout = ATTEMPT_TIMEOUT;
        options.attempts = ATTEMPTS;
        // The provider uses the time to live to schedule the next look-up, which a cache would hide.
        options.cache_size = 0;
        let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build();
        let resolver = resolver.map_err(|cause| ConfigError::new("DNS resolver", cause))?;
        let description = if self.servers.is_empty() {
            "dns, with the servers of /etc/resolv.conf".to_owned()
        } else {
            let servers: Vec<_> = self.servers.iter().map(SocketAddr::to_string).collect();
            format!("dns at {}", servers.join(" or "))
        };
        let queries = Queries::new(
            resolver,
            description.into(),
            self.name,
            self.port,
            self.scheme,
        );
        Ok(DnsProvider {
            queries: Arc::new(queries),
            min_refresh: self.min_refresh,
            max_refresh: self.max_refresh,
        })
    }
}

fn parse_server(text: &str) -> Result<SocketAddr, ConfigError> {
    let address = text.parse::<SocketAddr>();
    let address = address.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
    address.map_err(|_| {
        let problem = format!(
            "{text:?} is not an IP address, with or without a port; use a form such as 10.0.0.10 or \
             127.0.0.1:8600"
        );
        ConfigError::new(SERVER, problem)
    })
}

fn parse_name(variable: &'static str, text: &str) -> Result<Name, ConfigError> {
    Name::from_ascii(text)
        .map_err(|cause| ConfigError::new(variable, format!("{text:?} is not a DNS name: {cause}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(variables: &[(&str, &str)]) -> String {
        let environment = variables.iter().copied().collect();
        DnsProvider::from_environment(&environment)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn an_invalid_variable_is_named_with_what_would_be_right() {
        for (variable, value, part) in [
            (SERVER, "dns.example:53", "127.0.0.1:8600"),
            (NAME, "web.service.consul", "{service}"),
            (NAME, "{service}..example", "not a DNS name"),
            (SEARCH, "a..b", "not a DNS name"),
            (PORT, "http", "http"),
            (MAX_REFRESH, "10ms", "shorter than"),
            (MIN_REFRESH, "often", "30s"),
        ] {
            let error = error(&[(SERVER, "127.0.0.1"), (variable, value)]);
            assert!(error.contains(variable) && error.contains(part), "{error}");
        }
    }
}
