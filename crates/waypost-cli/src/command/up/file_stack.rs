//! Builds the stack that is described by a stack file.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use waypost_runner::control::About;
use waypost_runner::stack_file::{self, Addresses, Register, Registration, Service, StackFile};
use waypost_runner::{RestartRule, Stack, TakenPort, Transport, check_port, free_port};

use super::built_in::Registry;
use super::registry_choice::RegistryChoice;
use crate::command::stack;
use crate::error::CommandError;
use crate::suggest::closest;

/// The address that the programs listen on.
const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The part of a stack file that is started, with its addresses.
pub(super) struct FileStack {
    file: StackFile,
    registry: Registry,
    gateway: Option<u16>,
    dashboard: Option<u16>,
    /// The names of the services that are started.
    selected: BTreeSet<String>,
    ports: BTreeMap<String, u16>,
    replicas: BTreeMap<String, u32>,
}

/// A service that Waypost registers.
#[derive(Clone, Debug)]
pub(super) struct OnBehalf {
    /// The properties to register.
    pub(super) details: Registration,
    /// The host of an external service; otherwise this machine.
    pub(super) host: Option<String>,
}

/// The options that select the part of a stack file to start.
pub(super) struct Selection<'a> {
    /// The services; empty for all.
    pub(super) services: &'a [String],
    pub(super) profiles: &'a [String],
    /// Whether to leave out their dependencies.
    pub(super) alone: bool,
}

impl FileStack {
    pub(super) fn read(
        path: &Path,
        registry: Option<RegistryChoice>,
        selection: &Selection<'_>,
    ) -> Result<Self, CommandError> {
        let file = stack::read(path)?;
        let built_in = &file.contents().waypost;
        let choice = match registry {
            Some(choice) => choice,
            // Already validated with the file.
            None => built_in.registry.parse().map_err(CommandError::Invalid)?,
        };
        let Selection {
            services,
            profiles,
            alone,
        } = *selection;
        let selected = stack_file::selected(&file, services, profiles, alone)
            .map_err(|name| unknown_service(&file, &name))?;
        Ok(Self {
            registry: Registry::new(choice, built_in.registry_port),
            gateway: built_in.gateway.port(),
            dashboard: built_in.dashboard.port(),
            selected,
            ports: BTreeMap::new(),
            replicas: BTreeMap::new(),
            file,
        })
    }

    pub(super) fn set_port(&mut self, name: &str, port: u16) -> Result<(), CommandError> {
        match name {
            "registry" if !self.registry.is_started() => {
                let message = "--port registry: the port is already given by the stack file or \
                               --registry";
                return Err(CommandError::Invalid(message.to_owned()));
            }
            "registry" => self.registry.port = port,
            "gateway" => self.gateway = Some(port),
            "dashboard" => self.dashboard = Some(port),
            _ => {
                self.program("--port", name)?;
                self.ports.insert(name.to_owned(), port);
            }
        }
        Ok(())
    }

    pub(super) fn set_replicas(&mut self, name: &str, replicas: u32) -> Result<(), CommandError> {
        if self.program("--scale", name)?.once {
            let message = format!("--scale: {name} is a one-time task");
            return Err(CommandError::Invalid(message));
        }
        self.replicas.insert(name.to_owned(), replicas);
        Ok(())
    }

    /// The service with this name, which must be a program.
    fn program(&self, option: &str, name: &str) -> Result<&Service, CommandError> {
        let service = self.file.contents().services.get(name);
        let service = service.ok_or_else(|| match unknown_service(&self.file, name) {
            CommandError::Invalid(message) => CommandError::Invalid(format!("{option}: {message}")),
            other => other,
        })?;
        if service.external.is_some() {
            let message = format!("{option}: {name} is external; `waypost up` doesn't start it");
            return Err(CommandError::Invalid(message));
        }
        Ok(service)
    }

    /// Replaces every port that is in use by a free one.
    pub(super) fn choose_free_ports(&mut self) -> Result<(), CommandError> {
        let choose = |port: &mut u16| -> Result<(), CommandError> {
            if *port != 0 && check("", *port).is_err() {
                *port = free_port(HOST)?;
            }
            Ok(())
        };
        if self.registry.is_started() {
            choose(&mut self.registry.port)?;
        }
        for port in [&mut self.gateway, &mut self.dashboard]
            .into_iter()
            .flatten()
        {
            choose(port)?;
        }
        for name in &self.selected {
            let service = self.file.contents().services.get(name);
            let given = service.filter(|service| service.external.is_none());
            let given = given.and_then(|service| service.port);
            if let Some(mut port) = self.ports.get(name).copied().or(given) {
                choose(&mut port)?;
                self.ports.insert(name.clone(), port);
            }
        }
        Ok(())
    }

    /// Checks ports that the runner doesn't check: those of this process, and the registry's port on the
    /// other loopback address.
    pub(super) fn check_ports(&self, stack: &Stack) -> Result<(), CommandError> {
        let mut taken: Vec<String> = Vec::new();
        if let Err(error) = stack.check_ports() {
            taken.push(error.to_string());
        }
        if let Some(Err(error)) = self.dashboard.map(|port| check("dashboard", port)) {
            taken.push(error.to_string());
        }
        if taken.is_empty() {
            return self.registry.check_localhost();
        }
        taken.push(
            "stop these, or choose other ports with --auto-port or --port NAME=PORT".to_owned(),
        );
        Err(CommandError::Other(taken.join("\n")))
    }

    pub(super) fn stack(&self) -> Result<Stack, CommandError> {
        let waypost = std::env::current_exe()?;
        let mut builder = Stack::builder().keep_lines(2000);
        if let Some(registry) = self.registry.spec(&waypost)? {
            builder = builder.service(registry);
        }
        if let Some(port) = self.gateway {
            let mut gateway = self
                .registry
                .program(&waypost, "gateway", &["gateway"], port);
            if let Some(routes) = &self.file.contents().waypost.routes {
                gateway = gateway
                    .args(["--routes", routes.as_str()])
                    .dir(self.file.directory());
            }
            builder = builder.service(gateway.restart(RestartRule::Always));
        }
        let addresses = Addresses {
            registry_host: self.registry.host().to_owned(),
            registry_port: self.registry.port,
            gateway_port: self.gateway,
            ports: self.ports.clone(),
            replicas: self.replicas.clone(),
        };
        let is_selected = |name: &str| self.selected.contains(name);
        for service in stack_file::services(&self.file, &addresses, is_selected)? {
            // Programs may look up other services as soon as they start.
            let service = if self.registry.is_started() && !service.is_external() {
                service.after("registry")
            } else {
                service
            };
            builder = builder.service(service);
        }
        builder.build().map_err(CommandError::other)
    }

    pub(super) fn about(&self) -> About {
        let local = |port: u16| format!("http://localhost:{port}");
        About {
            name: self.file.name(),
            file: std::path::absolute(self.file.path()).ok(),
            directory: std::path::absolute(self.file.directory()).unwrap_or_default(),
            registry: if self.registry.is_started() {
                local(self.registry.port)
            } else {
                format!("http://{}", self.registry.address())
            },
            gateway: self.gateway.map(local),
            dashboard: self.dashboard.map(local),
        }
    }

    pub(super) fn file(&self) -> &StackFile {
        &self.file
    }

    pub(super) fn registry_address(&self) -> String {
        self.registry.address()
    }

    pub(super) fn dashboard(&self) -> Option<SocketAddr> {
        self.dashboard.map(|port| SocketAddr::new(HOST, port))
    }

    /// The addresses of the services that are opened in the browser.
    pub(super) fn pages(&self) -> Vec<String> {
        let services = self.file.contents().services.iter();
        let opened =
            services.filter(|(name, service)| service.open && self.selected.contains(*name));
        let ports = opened.filter_map(|(name, service)| {
            self.ports
                .get(name)
                .copied()
                .or(service.port)
                .filter(|port| *port != 0)
        });
        ports
            .map(|port| format!("http://localhost:{port}/"))
            .collect()
    }

    /// The services that Waypost registers.
    pub(super) fn on_behalf(&self) -> BTreeMap<String, OnBehalf> {
        let services = self.file.contents().services.iter();
        let registered = services.filter_map(|(name, service)| {
            let has_address = service.port.is_some() || service.external.is_some();
            let details = match &service.register {
                None | Some(Register::Switch(true)) => Registration::default(),
                Some(Register::Details(details)) => details.clone(),
                Some(Register::Switch(false) | Register::Own(_)) => return None,
            };
            let host = service.external.as_ref().and_then(|it| it.rsplit_once(':'));
            let on_behalf = OnBehalf {
                details,
                host: host.map(|(host, _)| host.trim_matches(['[', ']']).to_owned()),
            };
            (has_address && !service.once).then(|| (name.clone(), on_behalf))
        });
        registered.collect()
    }
}

fn check(service: &str, port: u16) -> Result<(), TakenPort> {
    check_port(service, SocketAddr::new(HOST, port), Transport::Tcp)
}

fn unknown_service(file: &StackFile, name: &str) -> CommandError {
    let known = file.order().iter().map(String::as_str);
    let advice = match closest(name, known) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("the services are {}", file.order().join(", ")),
    };
    let path = file.path().display();
    CommandError::Invalid(format!("there is no service {name:?} in {path}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: &str = r#"
        name = "shop"
        [waypost]
        registry-port = 8600
        gateway = 8100
        dashboard = 3100
        [services.web]
        run = "web"
        port = 4100
        open = true
        [services.named]
        run = "named"
        port = 4200
        register = { name = "other", tags = ["v1"] }
        [services.hidden]
        run = "hidden"
        port = 4300
        register = false
        [services.own]
        run = "own"
        port = 4400
        register = "self"
        [services.worker]
        run = "worker"
        [services.migrate]
        run = "migrate"
        port = 4500
        once = true
        [services.db]
        external = "[::1]:5432"
        [services.docs]
        run = "docs"
        port = 4600
        open = true
        profiles = ["docs"]
    "#;

    /// The stack of these services, with a folder that has to be kept.
    fn read(
        services: &str,
        registry: Option<&str>,
        profiles: &[&str],
    ) -> (Result<FileStack, CommandError>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waypost.toml");
        std::fs::write(&path, services).unwrap();
        let profiles: Vec<_> = profiles.iter().map(|name| (*name).to_owned()).collect();
        let selection = Selection {
            services: &[],
            profiles: &profiles,
            alone: false,
        };
        let registry = registry.map(|text| text.parse().unwrap());
        (FileStack::read(&path, registry, &selection), dir)
    }

    fn stack() -> (FileStack, tempfile::TempDir) {
        let (stack, dir) = read(SERVICES, None, &[]);
        (stack.unwrap(), dir)
    }

    #[track_caller]
    fn assert_refused(result: Result<(), CommandError>, expected: &str) {
        match result {
            Err(CommandError::Invalid(message)) => assert!(message.contains(expected), "{message}"),
            result => panic!("{result:?}"),
        }
    }

    #[test]
    fn a_port_is_set_for_waypost_or_for_a_program() {
        let (mut stack, _dir) = stack();
        for (name, port) in [
            ("registry", 1),
            ("gateway", 2),
            ("dashboard", 3),
            ("web", 4),
        ] {
            stack.set_port(name, port).unwrap();
        }
        let about = stack.about();
        assert_eq!(about.registry, "http://localhost:1");
        assert_eq!(about.gateway.as_deref(), Some("http://localhost:2"));
        assert_eq!(about.dashboard.as_deref(), Some("http://localhost:3"));
        assert_eq!(stack.registry_address(), "127.0.0.1:1");
        assert_eq!(stack.dashboard(), Some(SocketAddr::new(HOST, 3)));
        assert_eq!(stack.ports, BTreeMap::from([("web".to_owned(), 4)]));
        assert_eq!(stack.pages(), ["http://localhost:4/"]);
        assert_refused(
            stack.set_port("wbe", 5),
            "--port: there is no service \"wbe\" in ",
        );
        assert_refused(stack.set_port("wbe", 5), "did you mean web?");
        assert_refused(
            stack.set_port("zzzzz", 5),
            "the services are web, named, hidden",
        );
        assert_refused(stack.set_port("db", 5), "--port: db is external");
    }

    #[test]
    fn the_port_of_a_registry_that_runs_already_is_part_of_its_address() {
        for registry in ["consul:8500", "[::1]:8500"] {
            let (stack, _dir) = read(SERVICES, Some(registry), &[]);
            let mut stack = stack.unwrap();
            assert_refused(stack.set_port("registry", 1), "the port is already given");
            assert_eq!(stack.registry_address(), registry);
            assert_eq!(stack.about().registry, format!("http://{registry}"));
        }
        // The option takes precedence over the file.
        let at = "[waypost]\nregistry = \"consul:8500\"\n";
        let (stack, _dir) = read(at, Some("embedded"), &[]);
        assert!(stack.unwrap().registry.is_started());
        let (stack, _dir) = read(at, None, &[]);
        assert_eq!(stack.unwrap().registry_address(), "consul:8500");
    }

    #[test]
    fn the_number_of_instances_is_set_for_programs_that_keep_running() {
        let (mut stack, _dir) = stack();
        stack.set_replicas("web", 3).unwrap();
        assert_eq!(stack.replicas, BTreeMap::from([("web".to_owned(), 3)]));
        assert_refused(
            stack.set_replicas("migrate", 2),
            "--scale: migrate is a one-time task",
        );
        assert_refused(stack.set_replicas("db", 2), "--scale: db is external");
        assert_refused(
            stack.set_replicas("x", 2),
            "--scale: there is no service \"x\"",
        );
    }

    #[test]
    fn the_pages_of_services_that_are_started_and_opened_are_opened() {
        let (stack, _dir) = stack();
        assert_eq!(stack.pages(), ["http://localhost:4100/"]);
        let (with_docs, _dir) = read(SERVICES, None, &["docs"]);
        let pages = with_docs.unwrap().pages();
        assert_eq!(pages, ["http://localhost:4600/", "http://localhost:4100/"]);
        let free = "[services.web]\nrun = \"web\"\nport = 0\nopen = true\n";
        let (stack, _dir) = read(free, None, &[]);
        assert_eq!(stack.unwrap().pages(), [""; 0]);
    }

    #[test]
    fn programs_with_an_address_are_registered_unless_the_file_says_otherwise() {
        let (stack, _dir) = stack();
        let all = stack.on_behalf();
        let names: Vec<_> = all.keys().map(String::as_str).collect();
        // A task is not there long enough to be found.
        assert_eq!(names, ["db", "docs", "named", "web"]);
        assert_eq!(all["db"].host.as_deref(), Some("::1"));
        assert_eq!(all["web"].host, None);
        assert_eq!(all["web"].details.name, None);
        assert_eq!(all["named"].details.name.as_deref(), Some("other"));
        assert_eq!(all["named"].details.tags, ["v1"]);
    }

    #[test]
    fn only_ports_that_are_in_use_are_replaced_by_free_ones() {
        let taken = std::net::TcpListener::bind((HOST, 0)).unwrap();
        let taken = taken
            .local_addr()
            .map(|address| (address.port(), taken))
            .unwrap();
        let [registry, gateway, web] = [(); 3].map(|()| free_port(HOST).unwrap());
        let text = format!(
            "[waypost]\nregistry-port = {registry}\ngateway = {gateway}\ndashboard = {}\n\
             [services.web]\nrun = \"web\"\nport = {web}\n\
             [services.any]\nrun = \"any\"\nport = 0\n\
             [services.worker]\nrun = \"worker\"\n",
            taken.0
        );
        let (stack, _dir) = read(&text, None, &[]);
        let mut stack = stack.unwrap();
        stack.choose_free_ports().unwrap();
        assert_eq!(
            (stack.registry.port, stack.gateway),
            (registry, Some(gateway))
        );
        assert_ne!(stack.dashboard, Some(taken.0));
        let expected = BTreeMap::from([("any".to_owned(), 0), ("web".to_owned(), web)]);
        assert_eq!(stack.ports, expected);
        // A port that was given is replaced as well, and that of a registry elsewhere is not.
        stack.set_port("web", taken.0).unwrap();
        stack.set_port("registry", taken.0).unwrap();
        stack.choose_free_ports().unwrap();
        assert_ne!(stack.ports["web"], taken.0);
        assert_ne!(stack.registry.port, taken.0);
        stack.registry = Registry::new(format!("consul:{}", taken.0).parse().unwrap(), 1);
        stack.choose_free_ports().unwrap();
        assert_eq!(stack.registry.port, taken.0);
    }

    #[test]
    fn the_stack_has_its_name_its_file_and_the_services_in_order() {
        let (stack, dir) = stack();
        let about = stack.about();
        assert_eq!(about.name, "shop");
        assert_eq!(
            about.file.as_deref(),
            Some(&*dir.path().join("waypost.toml"))
        );
        assert_eq!(about.directory, dir.path());
        let off = "[waypost]\ngateway = false\ndashboard = false\n";
        let (stack, _dir) = read(off, None, &[]);
        let stack = stack.unwrap();
        assert_eq!(
            (stack.about().gateway, stack.about().dashboard),
            (None, None)
        );
        assert_eq!(stack.dashboard(), None);
        let (unknown, _dir) = read("[services.a]\nrun = 1\n", None, &[]);
        assert!(matches!(unknown, Err(CommandError::Invalid(_))));
    }
}
