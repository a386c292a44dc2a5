//! The programs that `waypost up` starts, and their ports.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use waypost_dashboard::server::ServicePage;
use waypost_runner::control::About;
use waypost_runner::{Stack, Transport, check_port};

use super::built_in::Registry;
use super::registry_choice::RegistryChoice;
use crate::error::CommandError;
use crate::suggest::closest;

/// The programs of the stack.
pub(super) struct Sample {
    registry: Registry,
    services: [Service; 3],
    /// The port of the dashboard, which also shows the page of the service `ui`.
    dashboard_port: u16,
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

impl Sample {
    pub(super) fn new(registry: RegistryChoice) -> Self {
        let service = |name, registered_as, arguments, port| Service {
            name,
            registered_as,
            arguments,
            port,
            replicas: None,
        };
        Self {
            registry: Registry::new(registry, 8500),
            services: [
                service("ai-models", "ai-models", &["service", "ai-models"], 8002),
                service("gateway", "api-gateway", &["gateway"], 8000),
                service("ui", "ui", &["service", "ui"], 0),
            ],
            dashboard_port: 3000,
        }
    }

    pub(super) fn set_port(&mut self, name: &str, port: u16) -> Result<(), CommandError> {
        if name == "ui" {
            self.dashboard_port = port;
        } else if name != "registry" {
            self.service_mut("--port", name)?.port = port;
        } else if !self.registry.is_started() {
            return Err(CommandError::other(
                "--port registry: the port is already given by --registry",
            ));
        } else {
            self.registry.port = port;
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
        if let Some(registry) = self.registry.spec(&waypost)? {
            builder = builder.service(registry);
        }
        for service in &self.services {
            let (name, arguments) = (service.name, service.arguments);
            let mut spec = self
                .registry
                .program(&waypost, name, arguments, service.port);
            if let Some(replicas) = service.replicas {
                spec = spec.replicas(replicas);
            }
            builder = builder.service(spec);
        }
        builder.build().map_err(CommandError::other)
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn gateway_port(&self) -> u16 {
        self.services[1].port
    }

    pub(super) fn about(&self) -> About {
        let local = |port: u16| format!("http://localhost:{port}");
        About {
            name: "sample".to_owned(),
            file: None,
            directory: std::env::current_dir().unwrap_or_default(),
            registry: format!("http://{}", self.registry.address()),
            gateway: Some(local(self.gateway_port())),
            dashboard: Some(local(self.dashboard_port)),
        }
    }

    pub(super) fn dashboard_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.dashboard_port))
    }

    /// Checks that the port of the dashboard is free, before anything is started.
    ///
    /// # Errors
    /// Names the process that uses it.
    pub(super) fn check_dashboard_port(&self) -> Result<(), CommandError> {
        let address = self.dashboard_address();
        check_port("ui", address, Transport::Tcp).map_err(CommandError::other)
    }

    /// The pages that the dashboard links to.
    pub(super) fn pages() -> Vec<ServicePage> {
        vec![ServicePage {
            title: "AI models demo".to_owned(),
            path: "try/ai-models".to_owned(),
            service: "ui".to_owned(),
        }]
    }

    /// The names under which the services register.
    pub(super) fn registered_names(&self) -> impl Iterator<Item = &'static str> {
        self.services.iter().map(|service| service.registered_as)
    }
}

impl fmt::Display for Sample {
    /// The URL of each program.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [models, gateway, _] = self.services.each_ref().map(|service| service.port);
        let ui = self.dashboard_port;
        writeln!(f, "  API gateway   http://127.0.0.1:{gateway}/")?;
        writeln!(f, "  UI            http://127.0.0.1:{ui}/try/ai-models/")?;
        writeln!(f, "  AI models     http://127.0.0.1:{models}/docs")?;
        write!(f, "  Registry      http://{}/ui/", self.registry.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(registry: &str) -> Sample {
        Sample::new(registry.parse().unwrap())
    }

    #[test]
    fn each_program_of_the_sample_has_a_port_that_can_be_set() {
        let mut sample = sample("embedded");
        for (port, name) in (1..).zip(["registry", "gateway", "ui", "ai-models"]) {
            sample.set_port(name, port).unwrap();
        }
        let about = sample.about();
        assert_eq!(about.registry, "http://127.0.0.1:1");
        assert_eq!(about.gateway.as_deref(), Some("http://localhost:2"));
        assert_eq!(about.dashboard.as_deref(), Some("http://localhost:3"));
        assert_eq!((about.name.as_str(), about.file), ("sample", None));
        assert_eq!(sample.gateway_port(), 2);
        assert_eq!(sample.dashboard_address(), "127.0.0.1:3".parse().unwrap());
        let text = sample.to_string();
        for (title, url) in [
            ("API gateway", "http://127.0.0.1:2/"),
            ("UI", "http://127.0.0.1:3/try/ai-models/"),
            ("AI models", "http://127.0.0.1:4/docs"),
            ("Registry", "http://127.0.0.1:1/ui/"),
        ] {
            let is_there = |line: &str| line.trim().starts_with(title) && line.ends_with(url);
            assert!(text.lines().any(is_there), "no {title} {url} in:\n{text}");
        }
        let names: Vec<_> = sample.registered_names().collect();
        assert_eq!(names, ["ai-models", "api-gateway", "ui"]);
    }

    #[test]
    fn a_wrong_name_is_refused_with_the_right_ones() {
        let mut own = sample("embedded");
        for (result, expected) in [
            (
                own.set_port("ai-model", 1),
                "--port: unknown name \"ai-model\"; did you mean ai-models?",
            ),
            (
                own.set_port("postgres", 1),
                "--port: unknown name \"postgres\"; use one of ai-models, gateway, ui",
            ),
            (
                own.set_replicas("registry", 2),
                "--scale: unknown name \"registry\"",
            ),
            (
                sample("consul:8500").set_port("registry", 1),
                "--port registry: the port is already given by --registry",
            ),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        own.set_replicas("ai-models", 3).unwrap();
        assert_eq!(own.services[0].replicas, Some(3));
    }

    #[test]
    fn the_port_of_the_dashboard_must_be_free() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut sample = sample("embedded");
        sample.set_port("ui", port).unwrap();
        let error = sample.check_dashboard_port().unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {port} of `ui` is in use by pid ")),
            "{error}"
        );
        drop(listener);
        sample.check_dashboard_port().unwrap();
    }
}
