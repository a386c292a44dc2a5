//! The programs that `waypost up` starts, and their ports.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use waypost_runner::{Probe, ServiceSpec, Stack, Transport, check_port};

use super::registry_choice::RegistryChoice;
use crate::command::consul_binary::ConsulBinary;
use crate::error::CommandError;
use crate::suggest::closest;

/// The programs of the stack.
pub(super) struct Plan {
    registry: RegistryChoice,
    registry_port: u16,
    services: [Service; 3],
}

/// A program that registers itself.
struct Service {
    /// The name on the command line.
    name: &'static str,
    /// The name in the registry.
    registered_as: &'static str,
    /// The arguments of `waypost` that run it.
    arguments: &'static [&'static str],
    port: u16,
    replicas: Option<u32>,
}

/// Cleared for the services, since each would override the registry that `up` chose. A variable
/// that is set but empty counts as not set.
const CLEARED_VARIABLES: [&str; 5] = [
    "CONSUL_HOST",
    "CONSUL_PORT",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_SSL",
    "SERVICE_DISCOVERY_CONFIG_FILE",
];

impl Plan {
    pub(super) fn new(registry: RegistryChoice) -> Self {
        let service = |name, registered_as, arguments, port| Service {
            name,
            registered_as,
            arguments,
            port,
            replicas: None,
        };
        Self {
            registry_port: match registry {
                RegistryChoice::At { port, .. } => port,
                RegistryChoice::Embedded | RegistryChoice::Consul => 8500,
            },
            registry,
            services: [
                service("ai-models", "ai-models", &["service", "ai-models"], 8002),
                service("gateway", "api-gateway", &["gateway"], 8000),
                service("ui", "ui", &["service", "ui"], 3000),
            ],
        }
    }

    pub(super) fn set_port(&mut self, name: &str, port: u16) -> Result<(), CommandError> {
        if name != "registry" {
            self.service_mut("--port", name)?.port = port;
        } else if matches!(self.registry, RegistryChoice::At { .. }) {
            return Err(CommandError::other(
                "--port registry: the port is already given by --registry",
            ));
        } else {
            self.registry_port = port;
        }
        Ok(())
    }

    pub(super) fn set_replicas(&mut self, name: &str, replicas: u32) -> Result<(), CommandError> {
        self.service_mut("--scale", name)?.replicas = Some(replicas);
        Ok(())
    }

    /// The service with this name. The error names the command line option.
    fn service_mut(&mut self, option: &str, name: &str) -> Result<&mut Service, CommandError> {
        let names = self.services.each_ref().map(|service| service.name);
        let mut services = self.services.iter_mut();
        services.find(|it| it.name == name).ok_or_else(|| {
            let advice = match closest(name, names) {
                Some(meant) => format!("did you mean {meant}?"),
                None => format!("use one of {}", names.join(", ")),
            };
            CommandError::Other(format!("{option}: unknown name {name:?}; {advice}"))
        })
    }

    /// The services, each with the ones it depends on.
    pub(super) fn stack(&self) -> Result<Stack, CommandError> {
        let waypost = std::env::current_exe()?;
        let mut builder = Stack::builder();
        let registry = self.registry_spec(&waypost)?;
        let has_registry = registry.is_some();
        if let Some(registry) = registry {
            builder = builder.service(registry);
        }
        for service in &self.services {
            let mut spec = ServiceSpec::new(service.name, &waypost)
                .args(service.arguments.iter().copied())
                .args(["--port", "{port}"])
                .port(service.port)
                .ready(Probe::http("/health"))
                .env("SERVICE_DISCOVERY_PROVIDER", "consul")
                .env("SERVICE_REGISTRY_HOST", self.registry_host())
                .env("SERVICE_REGISTRY_PORT", self.registry_port.to_string());
            for variable in CLEARED_VARIABLES {
                spec = spec.env(variable, "");
            }
            if let Some(replicas) = service.replicas {
                spec = spec.replicas(replicas);
            }
            if has_registry {
                spec = spec.after("registry");
            }
            builder = builder.service(spec);
        }
        builder.build().map_err(CommandError::other)
    }

    /// Checks that no other program has the registry's port on the IPv6 loopback address. Programs that
    /// connect to `localhost`, which is the default of all clients, could reach that one.
    ///
    /// # Errors
    /// Names the process.
    pub(super) fn check_localhost(&self) -> Result<(), CommandError> {
        if matches!(self.registry, RegistryChoice::At { .. }) {
            return Ok(());
        }
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, self.registry_port));
        match check_port("registry", address, Transport::Tcp) {
            // Any other error means that this machine has no IPv6.
            Err(taken) if taken.error.is_none() => {
                let holder = match taken.holder {
                    Some(holder) => holder.to_string(),
                    None => "a process that is not visible from here".to_owned(),
                };
                Err(CommandError::Other(format!(
                    "{holder} listens on {address}, which programs that connect to \
                     localhost:{} could take for the registry; stop it, or choose another port \
                     with --port registry=PORT",
                    self.registry_port
                )))
            }
            _ => Ok(()),
        }
    }

    /// The registry, unless it is already running.
    fn registry_spec(&self, waypost: &Path) -> Result<Option<ServiceSpec>, CommandError> {
        let loopback = Ipv4Addr::LOCALHOST.to_string();
        let spec = match self.registry {
            RegistryChoice::At { .. } => return Ok(None),
            RegistryChoice::Embedded => ServiceSpec::new("registry", waypost)
                .args(["agent", "--bind", &loopback, "--http-port", "{port}"])
                .args(["--dns-port", "0"])
                .ready(Probe::http("/v1/status/leader")),
            RegistryChoice::Consul => ServiceSpec::new("registry", ConsulBinary::require()?.path)
                .args(["agent", "-dev", "-ui", "-log-level=warn"])
                .args(["-bind", &loopback, "-client", &loopback])
                .args(["-http-port", "{port}", "-server-port", "{port:server}"])
                .args(["-serf-lan-port", "{port:lan}"])
                .args(["-serf-wan-port", "{port:wan}"])
                .args(["-dns-port=-1", "-grpc-port=-1"])
                .named_port("server", 0, Transport::Tcp)
                .named_port("lan", 0, Transport::Tcp)
                .named_port("wan", 0, Transport::Tcp)
                // Consul responds to this with an error until it has a leader.
                .ready(Probe::http("/v1/catalog/nodes")),
        };
        Ok(Some(spec.port(self.registry_port)))
    }

    /// The registry as `host:port`.
    pub(super) fn registry_address(&self) -> String {
        format!("{}:{}", self.registry_host(), self.registry_port)
    }

    /// The names under which the services register.
    pub(super) fn registered_names(&self) -> impl Iterator<Item = &'static str> {
        self.services.iter().map(|service| service.registered_as)
    }

    fn registry_host(&self) -> &str {
        match &self.registry {
            RegistryChoice::At { host, .. } => host,
            // Not localhost, which may also be [::1], where the registry does not listen.
            RegistryChoice::Embedded | RegistryChoice::Consul => "127.0.0.1",
        }
    }
}

impl fmt::Display for Plan {
    /// The URL of each program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [models, gateway, ui] = self.services.each_ref().map(|service| service.port);
        writeln!(f, "  API gateway   http://127.0.0.1:{gateway}/")?;
        writeln!(f, "  UI            http://127.0.0.1:{ui}/")?;
        writeln!(f, "  AI models     http://127.0.0.1:{models}/docs")?;
        write!(f, "  Registry      http://{}/ui/", self.registry_address())
    }
}
