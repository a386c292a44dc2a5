//! What an application says about itself to be found. It is what registries are told, and knows
//! nothing of them.

mod check;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::health::HealthChecks;
use crate::model::{Host, Instance, InstanceId, Invalid, ServiceName, Weight};

pub use check::{Check, CheckKind, HttpCheck};

/// What an application says about itself to be found: name, port and whatever else matters.
///
/// ```
/// use waypost_core::{Check, ServiceRegistration};
///
/// let registration = ServiceRegistration::new("billing", 8080)?
///     .version("1.0.0")
///     .tag("api")
///     .meta("region", "us-east")
///     .check(Check::http("/health"));
/// # Ok::<(), waypost_core::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "hand it to `Registrar::start` or to the integration of your web framework"]
pub struct ServiceRegistration {
    service: ServiceName,
    port: u16,
    host: Option<Host>,
    id: Option<InstanceId>,
    scheme: String,
    path_prefix: String,
    version: Option<String>,
    tags: Vec<String>,
    metadata: Vec<(String, String)>,
    weight: Weight,
    zone: Option<String>,
    ports: Vec<(String, u16)>,
    checks: Vec<Check>,
    health: Option<HealthChecks>,
    deregister_critical_after: Option<Duration>,
    tagged_addresses: BTreeMap<String, (Host, u16)>,
    tag_override: bool,
}

impl ServiceRegistration {
    /// After how long in critical state the registry forgets an instance, unless set otherwise:
    /// 10 minutes, so that nothing killed stays in the catalog for ever.
    pub const DEREGISTER_CRITICAL_AFTER: Duration = Duration::from_secs(600);

    /// A service by its name, on a port of this host. Port 0 is filled in by the integrations that
    /// know which port the application got.
    pub fn new<N>(service: N, port: u16) -> Result<Self, Invalid>
    where
        N: TryInto<ServiceName, Error = Invalid>,
    {
        Ok(Self {
            service: service.try_into()?,
            port,
            host: None,
            id: None,
            scheme: "http".into(),
            path_prefix: String::new(),
            version: None,
            tags: Vec::new(),
            metadata: Vec::new(),
            weight: Weight::default(),
            zone: None,
            ports: Vec::new(),
            checks: Vec::new(),
            health: None,
            deregister_critical_after: Some(Self::DEREGISTER_CRITICAL_AFTER),
            tagged_addresses: BTreeMap::new(),
            tag_override: false,
        })
    }

    /// The address under which others reach it. Unless set, the address from which this machine
    /// reaches the registry; with a Consul agent on this machine, the one of the agent's node.
    pub fn host(mut self, host: Host) -> Self {
        self.host = Some(host);
        self
    }

    /// Its port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Its id. Unless set it is made of service, host and port, so that a restart takes its old
    /// place and two hosts never share one.
    pub fn id(mut self, id: impl Into<InstanceId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How to speak to it, `http` unless set.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// The path below which it lives.
    pub fn path_prefix(mut self, path: impl Into<String>) -> Self {
        self.path_prefix = path.into();
        self
    }

    /// Its version.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds tags.
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Adds a value to the metadata.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Its share of the traffic.
    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// The zone that it runs in.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// A further port, by name.
    pub fn named_port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.ports.push((name.into(), port));
        self
    }

    /// Adds a check. Without any, the registry takes the instance to be well.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// What the instance says of itself when it registers and in the heartbeats of a TTL check.
    /// Unless set it says only that it lives.
    pub fn health(mut self, health: HealthChecks) -> Self {
        self.health = Some(health);
        self
    }

    /// After how long in critical state the registry forgets the instance; `None` for never.
    /// Unless set: [`DEREGISTER_CRITICAL_AFTER`](Self::DEREGISTER_CRITICAL_AFTER).
    pub fn deregister_critical_after(mut self, after: Option<Duration>) -> Self {
        self.deregister_critical_after = after;
        self
    }

    /// A further address, by tag, for those who come from elsewhere: `lan`, `wan` or any other.
    pub fn tagged_address(mut self, tag: impl Into<String>, host: Host, port: u16) -> Self {
        self.tagged_addresses.insert(tag.into(), (host, port));
        self
    }

    /// Lets others change the tags in Consul's catalog, as with its `EnableTagOverride`. Unless
    /// set, the agent puts them back.
    pub fn allow_tag_override(mut self) -> Self {
        self.tag_override = true;
        self
    }

    /// The service's name.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Sets the port, if it is 0 so far. Integrations call it with the port that they listen on.
    pub fn port_if_unset(mut self, port: u16) -> Self {
        if self.port == 0 {
            self.port = port;
        }
        self
    }

    /// Whether a host was set.
    pub fn has_host(&self) -> bool {
        self.host.is_some()
    }

    /// Whether a check was added.
    pub fn has_checks(&self) -> bool {
        !self.checks.is_empty()
    }

    /// The same with all that was left open filled in. `reached_from` is this machine's address as
    /// the registry sees it.
    pub fn resolve(self, reached_from: Option<IpAddr>) -> Result<Registration, Invalid> {
        let is_given = self.host.is_some();
        let host = self.host.unwrap_or_else(|| match reached_from {
            Some(ip) => Host::Ip(ip),
            None => Host::Ip(IpAddr::from([127, 0, 0, 1])),
        });
        let id = self.id.unwrap_or_else(|| {
            // A loopback address says nothing of which machine it is on.
            let whose = match host.is_loopback() {
                true => host_name(),
                false => host.bare(),
            };
            InstanceId::new(format!("{}-{whose}-{}", self.service, self.port))
        });
        let beside_agent = !is_given && host.is_loopback();
        let mut builder = Instance::builder(self.service, host, self.port)
            .id(id)
            .scheme(self.scheme)
            .path_prefix(self.path_prefix)
            .tags(self.tags)
            .metadata(self.metadata)
            .weight(self.weight);
        if let Some(version) = self.version {
            builder = builder.version(version);
        }
        if let Some(zone) = self.zone {
            builder = builder.zone(zone);
        }
        for (name, port) in self.ports {
            builder = builder.named_port(name, port);
        }
        Ok(Registration {
            instance: Arc::new(builder.build()?),
            checks: self.checks,
            health: self.health,
            deregister_critical_after: self.deregister_critical_after,
            tagged_addresses: self.tagged_addresses,
            tag_override: self.tag_override,
            beside_agent,
        })
    }
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// What a registry is asked to make known: an instance with its checks, nothing left open.
#[derive(Clone)]
pub struct Registration {
    instance: Arc<Instance>,
    checks: Vec<Check>,
    health: Option<HealthChecks>,
    deregister_critical_after: Option<Duration>,
    tagged_addresses: BTreeMap<String, (Host, u16)>,
    tag_override: bool,
    beside_agent: bool,
}

impl Registration {
    /// The instance as others will see it.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Its checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The shortest time to live among its checks, if it has a TTL check.
    pub fn ttl(&self) -> Option<Duration> {
        let ttls = self.checks.iter().filter_map(|check| match check.kind() {
            CheckKind::Ttl(ttl) => Some(*ttl),
            _ => None,
        });
        ttls.min()
    }

    /// After how long in critical state the registry forgets it.
    pub fn deregister_critical_after(&self) -> Option<Duration> {
        self.deregister_critical_after
    }

    /// Its further addresses: tag, host and port.
    pub fn tagged_addresses(&self) -> impl Iterator<Item = (&str, &Host, u16)> {
        let all = self.tagged_addresses.iter();
        all.map(|(tag, (host, port))| (tag.as_str(), host, *port))
    }

    /// Whether others may change its tags in the registry.
    pub fn allows_tag_override(&self) -> bool {
        self.tag_override
    }

    /// Whether all that is known of its address is that it is on the machine of the registry's
    /// agent, which knows better how others reach that.
    pub fn is_beside_agent(&self) -> bool {
        self.beside_agent
    }

    /// The health checks whose result heartbeats carry, if the application has any.
    pub fn health(&self) -> Option<&HealthChecks> {
        self.health.as_ref()
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("instance", &self.instance)
            .field("checks", &self.checks)
            .field("deregister_critical_after", &self.deregister_critical_after)
            .finish_non_exhaustive()
    }
}
