use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use waypost_runner::port::Transport;
use waypost_runner::{Probe, Process, Stack};

use crate::failure::Failure;

/// Which registry the stack uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RegistryChoice {
    Embedded,
    Consul,
    At { host: String, port: u16 },
}

impl FromStr for RegistryChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "consul" => Ok(Self::Consul),
            _ => {
                let wrong = || format!("{text:?}: use embedded, consul or HOST:PORT");
                let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
                Ok(Self::At {
                    host: host.to_owned(),
                    port: port
                        .parse()
                        .ok()
                        .filter(|port| *port != 0)
                        .ok_or_else(wrong)?,
                })
            }
        }
    }
}

/// What `up` starts, and where each can be reached.
pub(super) struct Plan {
    registry: RegistryChoice,
    registry_port: u16,
    services: [Service; 3],
}

/// One of the programs that find each other by name.
struct Service {
    /// Its name in the plan.
    name: &'static str,
    /// Its name in the registry.
    registered_as: &'static str,
    /// How it is started: the words after `waypost`.
    words: &'static [&'static str],
    port: u16,
    replicas: Option<u32>,
}

/// What a program must not take from the environment that `up` was called in, since `up` says it:
/// a variable that is set but empty counts as not set.
const SAID_BY_UP: [&str; 5] = [
    "CONSUL_HOST",
    "CONSUL_PORT",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_SSL",
    "SERVICE_DISCOVERY_CONFIG_FILE",
];

impl Plan {
    pub(super) fn new(registry: RegistryChoice) -> Result<Self, Failure> {
        let service = |name, registered_as, words, port| Service {
            name,
            registered_as,
            words,
            port,
            replicas: None,
        };
        Ok(Self {
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
        })
    }

    pub(super) fn set_port(&mut self, name: &str, port: u16) -> Result<(), Failure> {
        if name == "registry" {
            if let RegistryChoice::At { .. } = self.registry {
                return Err(Failure::other(
                    "--port registry: its port is a part of --registry",
                ));
            }
            self.registry_port = port;
            return Ok(());
        }
        self.service("--port", name)?.port = port;
        Ok(())
    }

    pub(super) fn set_replicas(&mut self, name: &str, replicas: u32) -> Result<(), Failure> {
        self.service("--scale", name)?.replicas = Some(replicas);
        Ok(())
    }

    fn service(&mut self, option: &str, name: &str) -> Result<&mut Service, Failure> {
        let known: Vec<_> = self.services.iter().map(|service| service.name).collect();
        let found = self
            .services
            .iter_mut()
            .find(|service| service.name == name);
        found.ok_or_else(|| {
            let known = known.join(", ");
            Failure::other(format_args!(
                "{option}: there is no {name:?}; there are {known}"
            ))
        })
    }

    /// The processes in the order in which they need each other.
    pub(super) fn stack(&self) -> Result<Stack, Failure> {
        let waypost = std::env::current_exe()?;
        let mut builder = Stack::builder();
        let registry = self.registry_process(&waypost);
        let has_registry = registry.is_some();
        if let Some(registry) = registry {
            builder = builder.process(registry);
        }
        for service in &self.services {
            let mut process = Process::new(service.name, &waypost)
                .args(service.words.iter().copied())
                .args(["--port", "{port}"])
                .port(service.port)
                .ready(Probe::http("/health"))
                .env("SERVICE_DISCOVERY_PROVIDER", "consul")
                .env("SERVICE_REGISTRY_HOST", self.registry_host())
                .env("SERVICE_REGISTRY_PORT", self.registry_port.to_string());
            for variable in SAID_BY_UP {
                process = process.env(variable, "");
            }
            if let Some(replicas) = service.replicas {
                process = process.replicas(replicas);
            }
            if has_registry {
                process = process.after("registry");
            }
            builder = builder.process(process);
        }
        builder.build().map_err(Failure::other)
    }

    fn registry_process(&self, waypost: &PathBuf) -> Option<Process> {
        let on_loopback = Ipv4Addr::LOCALHOST.to_string();
        let process = match self.registry {
            RegistryChoice::At { .. } => return None,
            RegistryChoice::Embedded => Process::new("registry", waypost)
                .args(["agent", "--bind", &on_loopback, "--http-port", "{port}"])
                .args(["--dns-port", "0"])
                .ready(Probe::http("/v1/status/leader")),
            RegistryChoice::Consul => Process::new("registry", consul_program())
                .args(["agent", "-dev", "-ui", "-log-level=warn"])
                .args(["-bind", &on_loopback, "-client", &on_loopback])
                .args(["-http-port", "{port}", "-server-port", "{port:server}"])
                .args([
                    "-serf-lan-port",
                    "{port:lan}",
                    "-serf-wan-port",
                    "{port:wan}",
                ])
                .args(["-dns-port=-1", "-grpc-port=-1"])
                .named_port("server", 0, Transport::Tcp)
                .named_port("lan", 0, Transport::Tcp)
                .named_port("wan", 0, Transport::Tcp)
                // Before it has a leader it answers this with an error.
                .ready(Probe::http("/v1/catalog/nodes")),
        };
        Some(process.port(self.registry_port))
    }

    /// Where the registry is.
    pub(super) fn registry_address(&self) -> String {
        format!("{}:{}", self.registry_host(), self.registry_port)
    }

    /// The names under which the services are found.
    pub(super) fn registered_names(&self) -> impl Iterator<Item = &'static str> {
        self.services.iter().map(|service| service.registered_as)
    }

    fn registry_host(&self) -> &str {
        match &self.registry {
            RegistryChoice::At { host, .. } => host,
            RegistryChoice::Embedded | RegistryChoice::Consul => "localhost",
        }
    }
}

/// `CONSUL_BIN`, else the one on `PATH`.
fn consul_program() -> PathBuf {
    std::env::var_os("CONSUL_BIN").map_or_else(|| "consul".into(), PathBuf::from)
}

impl fmt::Display for Plan {
    /// Where everything is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port_of = |name| {
            let found = self.services.iter().find(|service| service.name == name);
            found.map_or(0, |service| service.port)
        };
        writeln!(
            f,
            "  API gateway   http://localhost:{}/",
            port_of("gateway")
        )?;
        writeln!(f, "  UI            http://localhost:{}/", port_of("ui"))?;
        writeln!(
            f,
            "  AI models     http://localhost:{}/docs",
            port_of("ai-models")
        )?;
        write!(f, "  Registry      http://{}/ui/", self.registry_address())
    }
}
