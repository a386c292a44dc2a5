//! A set of services that are started together, validated before anything runs.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{BuildError, SupervisorError};
use crate::order;
use crate::ports::Ports;
use crate::service::ServiceSpec;

/// A validated set of services. [`Supervisor::start`](crate::Supervisor::start) starts it.
#[derive(Debug)]
pub struct Stack {
    pub(crate) services: Vec<Arc<ServiceSpec>>,
    /// Indices into `services`: each wave depends only on earlier ones.
    pub(crate) waves: Vec<Vec<usize>>,
    pub(crate) shim_executable: Option<PathBuf>,
    pub(crate) keep_lines: usize,
    pub(crate) seed: u64,
}

impl Stack {
    /// A builder for a stack without services.
    ///
    /// ```
    /// use waypost_runner::{ServiceSpec, Stack};
    ///
    /// let result = Stack::builder()
    ///     .service(ServiceSpec::new("web", "python3").args(["-m", "http.server", "{port}"]))
    ///     .build();
    /// assert_eq!(
    ///     result.unwrap_err().to_string(),
    ///     "service `web`, args[2]: {port} is used, but the service has no main port",
    /// );
    /// ```
    pub fn builder() -> StackBuilder {
        StackBuilder {
            services: Vec::new(),
            shim_executable: None,
            keep_lines: 1000,
            seed: None,
        }
    }

    /// Checks that the fixed ports of all services that start with the stack are free.
    ///
    /// # Errors
    /// [`SupervisorError::PortsTaken`] with every port that is in use, and the process that holds it.
    pub fn check_ports(&self) -> Result<(), SupervisorError> {
        let taken: Vec<_> = self
            .services
            .iter()
            .filter(|service| service.external.is_none() && service.is_enabled)
            .flat_map(|service| Ports::new(&service.ports, 1).taken(&service.name, service.host))
            .collect();
        if taken.is_empty() {
            Ok(())
        } else {
            Err(SupervisorError::PortsTaken(taken))
        }
    }
}

/// Describes a [`Stack`].
#[derive(Debug)]
#[must_use]
pub struct StackBuilder {
    services: Vec<ServiceSpec>,
    shim_executable: Option<PathBuf>,
    keep_lines: usize,
    seed: Option<u64>,
}

impl StackBuilder {
    /// Adds a service. The order of the calls decides the order of the statuses, not the order of
    /// the start; see [`ServiceSpec::after`].
    pub fn service(mut self, service: ServiceSpec) -> Self {
        self.services.push(service);
        self
    }

    /// How many of the last lines of each instance are kept; default: 1,000 (and at most 4 MiB).
    pub fn keep_lines(mut self, lines: usize) -> Self {
        self.keep_lines = lines;
        self
    }

    /// The executable to run as shim, whose `main` begins with
    /// [`shim::run_if_requested`](crate::shim::run_if_requested); default: this one.
    pub fn shim_executable(mut self, program: impl Into<PathBuf>) -> Self {
        self.shim_executable = Some(program.into());
        self
    }

    /// Makes the delays before restarts reproducible; default: a random seed.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Validates the description.
    ///
    /// # Errors
    /// A field is invalid, a name or port is used twice, a dependency does not exist, or services
    /// depend on each other.
    pub fn build(self) -> Result<Stack, BuildError> {
        for service in &self.services {
            service.validate()?;
        }
        self.check_unique_names()?;
        self.check_unique_ports()?;
        let waves = order::waves(&self.services)?;
        Ok(Stack {
            services: self.services.into_iter().map(Arc::new).collect(),
            waves,
            shim_executable: self.shim_executable,
            keep_lines: self.keep_lines,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
        })
    }

    fn check_unique_names(&self) -> Result<(), BuildError> {
        let mut seen = HashSet::new();
        for service in &self.services {
            let instances = service.initial_replicas().map(|n| service.instance_name(n));
            // A set, because a single instance has the name of its service.
            let names: HashSet<String> = instances.chain([service.name.clone()]).collect();
            for name in names {
                if !seen.insert(name.clone()) {
                    return Err(BuildError::DuplicateName(name));
                }
            }
        }
        Ok(())
    }

    fn check_unique_ports(&self) -> Result<(), BuildError> {
        let overlap = |a: IpAddr, b: IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
        let mut seen: HashMap<u16, Vec<&ServiceSpec>> = HashMap::new();
        for service in self.services.iter().filter(|it| it.external.is_none()) {
            for port in service.ports.iter().filter(|port| port.number != 0) {
                let owners = seen.entry(port.number).or_default();
                if let Some(first) = owners
                    .iter()
                    .find(|owner| overlap(owner.host, service.host))
                {
                    return Err(BuildError::DuplicatePort {
                        port: port.number,
                        first: first.name.clone(),
                        second: service.name.clone(),
                    });
                }
                owners.push(service);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Probe;

    fn build_error(services: impl IntoIterator<Item = ServiceSpec>) -> String {
        let builder = services
            .into_iter()
            .fold(Stack::builder(), StackBuilder::service);
        builder.build().unwrap_err().to_string()
    }

    #[test]
    fn every_build_error_names_the_service_and_the_field() {
        let s = |name: &str| ServiceSpec::new(name, "true");
        let message = "service `a b`, name: must consist of letters, digits, `-`, `_` and `.`";
        assert_eq!(build_error([s("a b")]), message);
        assert_eq!(
            build_error([ServiceSpec::new("a", "")]),
            "service `a`, program: is empty"
        );
        assert_eq!(
            build_error([s("a").replicas(0)]),
            "service `a`, replicas: must be at least 1"
        );
        assert_eq!(
            build_error([s("a").port(1).port(2)]),
            "service `a`, port: is set twice"
        );
        assert_eq!(
            build_error([s("a").args(["--port", "{port}"])]),
            "service `a`, args[1]: {port} is used, but the service has no main port"
        );
        assert_eq!(
            build_error([s("a").env("PORT", "{port}")]),
            "service `a`, env PORT: {port} is used, but the service has no main port"
        );
        assert_eq!(
            build_error([s("a").ready(Probe::http("/health"))]),
            "service `a`, ready: {port} is used, but the service has no main port"
        );
        assert_eq!(
            build_error([s("a").port(1).ready(Probe::http("https://x/"))]),
            "service `a`, ready: `https://x/` must be a path such as `/health` or begin with `http://`"
        );
    }

    #[test]
    fn names_are_unique_among_services_and_instances() {
        let s = |name: &str| ServiceSpec::new(name, "true");
        assert_eq!(
            build_error([s("a"), s("a")]),
            "the name `a` is used by two services"
        );
        assert_eq!(
            build_error([s("a").replicas(2), s("a-2")]),
            "the name `a-2` is used by two services"
        );
    }

    #[test]
    fn ports_are_unique_unless_the_addresses_differ() {
        let s = |name: &str, host: &str| {
            ServiceSpec::new(name, "true")
                .port(8000)
                .host(host.parse().unwrap())
        };
        let clash = "port 8000 is used by both `a` and `b`";
        assert_eq!(
            build_error([s("a", "127.0.0.1"), s("b", "127.0.0.1")]),
            clash
        );
        assert_eq!(build_error([s("a", "127.0.0.1"), s("b", "0.0.0.0")]), clash);
        let stack = Stack::builder()
            .service(s("a", "127.0.0.1"))
            .service(s("b", "127.0.0.2"));
        assert!(stack.build().is_ok());
    }
}
