//! The programs that Waypost adds to a stack.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use waypost_runner::{Probe, ServiceDetails, ServiceSpec, Transport, VariableSource, check_port};

use super::registry_choice::RegistryChoice;
use crate::command::consul_binary::ConsulBinary;
use crate::error::CommandError;

/// The registry that a stack uses.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    pub(super) choice: RegistryChoice,
    /// The port of the registry, if it is started with the stack.
    pub(super) port: u16,
}

/// Cleared for the programs, since each would override the registry of the stack. A variable that is
/// set but empty counts as not set.
const CLEARED_VARIABLES: [&str; 5] = [
    "CONSUL_HOST",
    "CONSUL_PORT",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_SSL",
    "SERVICE_DISCOVERY_CONFIG_FILE",
];

impl Registry {
    pub(super) fn new(choice: RegistryChoice, default_port: u16) -> Self {
        let port = match choice {
            RegistryChoice::At { port, .. } => port,
            RegistryChoice::Embedded | RegistryChoice::Consul => default_port,
        };
        Self { choice, port }
    }

    pub(super) fn host(&self) -> &str {
        match &self.choice {
            RegistryChoice::At { host, .. } => host,
            // Not localhost, which may also be [::1], where the registry does not listen.
            RegistryChoice::Embedded | RegistryChoice::Consul => "127.0.0.1",
        }
    }

    /// `host:port`
    pub(super) fn address(&self) -> String {
        format!("{}:{}", self.host(), self.port)
    }

    pub(super) fn is_started(&self) -> bool {
        !matches!(self.choice, RegistryChoice::At { .. })
    }

    /// The program to start. `None` if the registry is already running.
    pub(super) fn spec(&self, waypost: &Path) -> Result<Option<ServiceSpec>, CommandError> {
        let loopback = Ipv4Addr::LOCALHOST.to_string();
        let spec = match self.choice {
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
        let details = ServiceDetails {
            built_in: true,
            url: Some(format!("http://localhost:{}/ui/", self.port)),
            ..ServiceDetails::default()
        };
        Ok(Some(spec.port(self.port).details(details)))
    }

    /// Checks that no other program has the registry's port on the IPv6 loopback address. Programs that
    /// connect to `localhost`, which is the default of all clients, could reach that one.
    ///
    /// # Errors
    /// Names the process.
    pub(super) fn check_localhost(&self) -> Result<(), CommandError> {
        if !self.is_started() {
            return Ok(());
        }
        let address = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port));
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
                    self.port
                )))
            }
            _ => Ok(()),
        }
    }

    /// A program of Waypost that registers itself.
    pub(super) fn program(
        &self,
        waypost: &Path,
        name: &str,
        arguments: &[&str],
        port: u16,
    ) -> ServiceSpec {
        let mut spec = ServiceSpec::new(name, waypost)
            .args(arguments.iter().copied())
            .args(["--port", "{port}"])
            .port(port)
            .ready(Probe::http("/health"))
            .variable(
                "SERVICE_DISCOVERY_PROVIDER",
                "consul",
                VariableSource::Waypost,
            )
            .variable(
                "SERVICE_REGISTRY_HOST",
                self.host(),
                VariableSource::Waypost,
            )
            .variable(
                "SERVICE_REGISTRY_PORT",
                self.port.to_string(),
                VariableSource::Waypost,
            );
        for variable in CLEARED_VARIABLES {
            spec = spec.variable(variable, "", VariableSource::Waypost);
        }
        if self.is_started() {
            spec = spec.after("registry");
        }
        spec.details(ServiceDetails {
            built_in: true,
            url: Some(format!("http://localhost:{port}/")),
            ..ServiceDetails::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_is_started_listens_on_this_machine_and_one_that_runs_is_left_alone() {
        let registry = |choice: &str| Registry::new(choice.parse().unwrap(), 8600);
        let embedded = registry("embedded");
        assert!(embedded.is_started());
        assert_eq!(embedded.address(), "127.0.0.1:8600");
        assert!(embedded.spec(Path::new("waypost")).unwrap().is_some());
        let running = registry("consul.local:8500");
        assert!(!running.is_started());
        assert_eq!(running.address(), "consul.local:8500");
        assert!(running.spec(Path::new("waypost")).unwrap().is_none());
    }

    #[test]
    fn a_program_on_the_other_loopback_address_is_taken_for_the_registry() {
        // Without IPv6, there is no such address.
        let Ok(listener) = std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let check = |choice: &str| Registry::new(choice.parse().unwrap(), port).check_localhost();
        let error = check("embedded").unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("pid {} ", std::process::id())),
            "{error}"
        );
        assert!(
            error.contains(&format!("listens on [::1]:{port}")),
            "{error}"
        );
        check(&format!("localhost:{port}")).unwrap();
        drop(listener);
        check("embedded").unwrap();
    }
}
