//! The registration of an application: [`ServiceRegistration`] as the application writes it, and
//! [`Registration`] as registries get it, with every default filled in.

mod check;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::health::HealthChecks;
use crate::model::{Host, Instance, InstanceId, Invalid, ServiceName, Weight};

pub use check::{Check, CheckKind, HttpCheck};

/// A registration as an application writes it: name, port, and any optional properties.
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
#[must_use = "pass it to `Registrar::start` or to the integration of your web framework"]
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
    /// The default time after which the registry removes an instance that stays critical: 10 minutes.
    /// Without it, instances that were killed would stay in the catalog forever.
    pub const DEREGISTER_CRITICAL_AFTER: Duration = Duration::from_secs(600);

    /// A registration of `service` on a port of this host. Port 0 is replaced by integrations with
    /// the port that the application listens on.
    ///
    /// # Errors
    /// If the name is not valid.
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

    /// Sets the host that clients connect to. Default: the local address from which this machine
    /// reaches the registry; if a Consul agent runs on this machine, the address of the agent's node.
    pub fn host(mut self, host: Host) -> Self {
        self.host = Some(host);
        self
    }

    /// Sets the port.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Sets the id. Default, also for an empty id: `service-host-port`, so that a restarted process
    /// replaces its earlier registration, and two hosts never share an id.
    pub fn id(mut self, id: impl Into<InstanceId>) -> Self {
        self.id = Some(id.into()).filter(|id| !id.as_str().is_empty());
        self
    }

    /// Sets the scheme. Default: `http`.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// Sets the path that precedes every request path. Default: none.
    pub fn path_prefix(mut self, path: impl Into<String>) -> Self {
        self.path_prefix = path.into();
        self
    }

    /// Sets the version.
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

    /// Sets the share of the traffic. Default: 1.
    pub fn weight(mut self, weight: Weight) -> Self {
        self.weight = weight;
        self
    }

    /// Sets the zone that the instance runs in.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Adds a named port.
    pub fn named_port(mut self, name: impl Into<String>, port: u16) -> Self {
        self.ports.push((name.into(), port));
        self
    }

    /// Adds a check. Without checks, the registry considers the instance healthy.
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Sets the health checks whose result is reported at registration and in heartbeats. Without
    /// them, only liveness is reported.
    pub fn health(mut self, health: HealthChecks) -> Self {
        self.health = Some(health);
        self
    }

    /// Sets the time after which the registry removes the instance if it stays critical; `None` for
    /// never. Default: [`DEREGISTER_CRITICAL_AFTER`](Self::DEREGISTER_CRITICAL_AFTER).
    pub fn deregister_critical_after(mut self, after: Option<Duration>) -> Self {
        self.deregister_critical_after = after;
        self
    }

    /// Adds an address for clients on another network, by tag: `lan`, `wan` or any other.
    pub fn tagged_address(mut self, tag: impl Into<String>, host: Host, port: u16) -> Self {
        self.tagged_addresses.insert(tag.into(), (host, port));
        self
    }

    /// Lets others change the tags in Consul's catalog (`EnableTagOverride`). By default the agent
    /// reverts such changes.
    pub fn allow_tag_override(mut self) -> Self {
        self.tag_override = true;
        self
    }

    /// The service's name.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Sets the port if it is 0. Integrations call this with the port that they listen on.
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

    /// Fills in the defaults. `local_address` is the address from which this machine reaches the
    /// registry ([`Registry::local_address`](crate::provider::Registry::local_address)).
    ///
    /// # Errors
    /// If the port is 0, or the scheme or the path prefix is not valid.
    pub fn resolve(self, local_address: Option<IpAddr>) -> Result<Registration, Invalid> {
        let has_host = self.host.is_some();
        let host = self.host.unwrap_or_else(|| {
            let loopback = IpAddr::from([127, 0, 0, 1]);
            Host::Ip(local_address.unwrap_or(loopback))
        });
        let id = self.id.unwrap_or_else(|| {
            // A loopback address doesn't identify the machine.
            let machine = if host.is_loopback() {
                host_name()
            } else {
                host.bare()
            };
            InstanceId::new(format!("{}-{machine}-{}", self.service, self.port))
        });
        let uses_agent_address = !has_host && host.is_loopback();
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
            uses_agent_address,
        })
    }
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// A registration as registries get it: an instance with its checks, with every default filled in.
///
/// Made by [`ServiceRegistration::resolve`].
#[derive(Clone)]
pub struct Registration {
    instance: Arc<Instance>,
    checks: Vec<Check>,
    health: Option<HealthChecks>,
    deregister_critical_after: Option<Duration>,
    tagged_addresses: BTreeMap<String, (Host, u16)>,
    tag_override: bool,
    uses_agent_address: bool,
}

impl Registration {
    /// The instance as clients will see it.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// The checks.
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The shortest time to live of any TTL check; `None` without one.
    pub fn ttl(&self) -> Option<Duration> {
        let ttls = self.checks.iter().filter_map(|check| match check.kind() {
            CheckKind::Ttl(ttl) => Some(*ttl),
            _ => None,
        });
        ttls.min()
    }

    /// The time after which the registry removes the instance if it stays critical; `None` for never.
    pub fn deregister_critical_after(&self) -> Option<Duration> {
        self.deregister_critical_after
    }

    /// The addresses for other networks: tag, host and port, sorted by tag.
    pub fn tagged_addresses(&self) -> impl Iterator<Item = (&str, &Host, u16)> {
        let all = self.tagged_addresses.iter();
        all.map(|(tag, (host, port))| (tag.as_str(), host, *port))
    }

    /// Whether others may change the tags in the registry.
    pub fn allows_tag_override(&self) -> bool {
        self.tag_override
    }

    /// Whether the instance should be registered under the address of the registry's agent: no host
    /// was set, and the agent runs on this machine, so that only a loopback address is known.
    pub fn uses_agent_address(&self) -> bool {
        self.uses_agent_address
    }

    /// The health checks whose result is reported, if the application has any.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> ServiceRegistration {
        ServiceRegistration::new("web", 0).unwrap()
    }

    /// Integrations ask what is set, and fill in the rest.
    #[test]
    fn a_registration_says_what_the_application_has_set() {
        assert!(!web().has_host());
        assert!(web().host("10.0.0.7".parse().unwrap()).has_host());
        assert!(!web().has_checks());
        assert!(web().check(Check::tcp()).has_checks());
        for (set, port) in [(0, 8080), (80, 80)] {
            let registration = web().port(set).port_if_unset(8080).resolve(None).unwrap();
            assert_eq!(registration.instance().port(), port);
        }
    }

    #[test]
    fn the_host_is_the_one_set_or_else_the_local_address_or_else_that_of_the_agent() {
        let local: IpAddr = "10.0.0.9".parse().unwrap();
        for (host, local, expected, uses_agent_address) in [
            (Some("10.0.0.7"), Some(local), "10.0.0.7", false),
            (Some("127.0.0.1"), Some(local), "127.0.0.1", false),
            (None, Some(local), "10.0.0.9", false),
            (None, Some([127, 0, 0, 1].into()), "127.0.0.1", true),
            (None, None, "127.0.0.1", true),
        ] {
            let mut registration = web().port(80);
            if let Some(host) = host {
                registration = registration.host(host.parse().unwrap());
            }
            let registration = registration.resolve(local).unwrap();
            let instance = registration.instance();
            assert_eq!(instance.host().to_string(), expected);
            assert_eq!(
                registration.uses_agent_address(),
                uses_agent_address,
                "{expected}"
            );
            // Many machines have the same loopback address.
            let id = instance.id().to_string();
            assert!(!id.contains("127.0.0.1"), "{id}");
        }
    }

    #[test]
    fn the_time_to_live_is_the_shortest_of_all_checks() {
        let seconds = Duration::from_secs;
        let registration = web().port(80).check(Check::tcp());
        assert_eq!(registration.clone().resolve(None).unwrap().ttl(), None);
        let registration = (registration.check(Check::ttl(seconds(30))))
            .check(Check::ttl(seconds(10)))
            .check(Check::ttl(seconds(20)));
        assert_eq!(registration.resolve(None).unwrap().ttl(), Some(seconds(10)));
    }
}
