//! Converts the services of a stack file to service descriptions.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::check::{host_and_port, split_dependency, words};
use super::env_file::EnvFile;
use super::file::StackFile;
use super::format::{Ready, Register, Service};
use super::needs_env::{file_of_variables, missing_variables_of};
use super::template::expand_service_ports;
use crate::port::free_port;
use crate::probe::Probe;
use crate::service::{RestartRule, ServiceDetails, ServiceSpec, VariableSource};
use crate::watch::WatchSpec;

/// The addresses through which the services find each other.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// The host of the registry.
    pub registry_host: String,
    /// The port of the registry.
    pub registry_port: u16,
    /// The port of the gateway on this machine.
    pub gateway_port: Option<u16>,
    /// Ports that replace those of the file, by service.
    pub ports: BTreeMap<String, u16>,
    /// Numbers of instances that replace those of the file, by service.
    pub replicas: BTreeMap<String, u32>,
}

/// The time between two checks of a ready instance. The end of a program is always noticed at once.
const EVERY: Duration = Duration::from_secs(5);
/// How long a program without a port has to run before it counts as started.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

/// Variables that would make services use another registry than the stack's. They are set to an empty
/// value, which counts as not set.
const OVERRIDING: [&str; 4] = [
    "CONSUL_HOST",
    "CONSUL_PORT",
    "CONSUL_HTTP_SSL",
    "SERVICE_DISCOVERY_CONFIG_FILE",
];

/// The descriptions of all services of a file, in its order. `is_enabled` says which ones are started
/// with the stack.
///
/// # Errors
/// There is no free port for a service that needs one.
pub fn services(
    file: &StackFile,
    addresses: &Addresses,
    is_enabled: impl Fn(&str) -> bool,
) -> io::Result<Vec<ServiceSpec>> {
    let conversion = Conversion {
        file,
        addresses,
        ports: first_ports(file, &addresses.ports)?,
    };
    let services = &file.contents().services;
    let specs = file.order().iter().filter_map(|name| {
        let spec = conversion.service(name, services.get(name)?);
        Some(if is_enabled(name) {
            spec
        } else {
            spec.disabled()
        })
    });
    Ok(specs.collect())
}

/// The services of a file to start: those with one of these names or, without names, all services
/// enabled by the profiles. Unless `alone`, their direct and indirect dependencies are included.
///
/// # Errors
/// Returns the first name that is not a service.
pub fn selected(
    file: &StackFile,
    names: &[String],
    profiles: &[String],
    alone: bool,
) -> Result<BTreeSet<String>, String> {
    let services = &file.contents().services;
    if let Some(unknown) = names.iter().find(|name| !services.contains_key(*name)) {
        return Err(unknown.clone());
    }
    let is_on = |service: &Service| {
        service.profiles.is_empty()
            || service
                .profiles
                .iter()
                .any(|profile| profiles.contains(profile))
    };
    let mut selected: Vec<&str> = if names.is_empty() {
        let all = services.iter().filter(|(_, service)| is_on(service));
        all.map(|(name, _)| name.as_str()).collect()
    } else {
        names.iter().map(String::as_str).collect()
    };
    let mut index = 0;
    while let (false, Some(name)) = (alone, selected.get(index).copied()) {
        for entry in services.get(name).iter().flat_map(|service| &service.after) {
            let (dependency, _) = split_dependency(entry);
            if !selected.contains(&dependency) {
                selected.push(dependency);
            }
        }
        index += 1;
    }
    Ok(selected.into_iter().map(str::to_owned).collect())
}

/// The port of the first instance of each service. A port of 0 is replaced by a free one now, because
/// other services need it in their settings.
fn first_ports(
    file: &StackFile,
    chosen: &BTreeMap<String, u16>,
) -> io::Result<BTreeMap<String, u16>> {
    let mut ports = BTreeMap::new();
    for (name, service) in &file.contents().services {
        let external = service.external.as_deref().and_then(host_and_port);
        let port = match (external, chosen.get(name).copied().or(service.port)) {
            (Some((_, port)), _) => port,
            (None, Some(0)) => free_port(IpAddr::V4(Ipv4Addr::LOCALHOST))?,
            (None, Some(port)) => port,
            (None, None) => continue,
        };
        ports.insert(name.clone(), port);
    }
    Ok(ports)
}

struct Conversion<'f> {
    file: &'f StackFile,
    addresses: &'f Addresses,
    ports: BTreeMap<String, u16>,
}

impl Conversion<'_> {
    fn service(&self, name: &str, service: &Service) -> ServiceSpec {
        let spec = match service.external.as_deref().and_then(host_and_port) {
            Some((host, port)) => ServiceSpec::external(name, host, port),
            None => self.program(name, service),
        };
        let spec = service
            .after
            .iter()
            .fold(spec, |spec, entry| match split_dependency(entry) {
                (dependency, Some("started")) => spec.after_started(dependency),
                (dependency, _) => spec.after(dependency),
            });
        let spec = match &service.ready {
            Some(ready) => self.ready(spec, service, ready),
            None if service.once => spec.ready(Probe::completed()),
            None => self.ready(spec, service, &Ready::default()),
        };
        spec.details(ServiceDetails {
            built_in: false,
            url: self.url(name, service, "localhost"),
            uses: service.uses.clone(),
            links: service.links.clone(),
            profiles: service.profiles.clone(),
        })
    }

    fn program(&self, name: &str, service: &Service) -> ServiceSpec {
        let defaults = &self.file.contents().defaults;
        let command = service.run.as_ref().map(|run| words(run, service.shell));
        let mut command = command.and_then(Result::ok).unwrap_or_default().into_iter();
        let program = self.text(&command.next().unwrap_or_default());
        let mut spec = ServiceSpec::new(name, program)
            .args(command.map(|word| self.text(&word)))
            .dir(self.folder(service))
            .restart(
                service
                    .restart
                    .or(defaults.restart)
                    .unwrap_or(RestartRule::Crash),
            );
        if let Some(port) = self.ports.get(name) {
            spec = spec.port(*port);
        }
        let replicas = self.addresses.replicas.get(name).copied();
        if let Some(replicas) = replicas.or(service.replicas) {
            spec = spec.replicas(replicas);
        }
        let stop = service.stop.as_ref();
        if let Some(signal) = stop.and_then(|stop| stop.signal).or(defaults.stop.signal) {
            spec = spec.stop_signal(signal);
        }
        if let Some(within) = stop.and_then(|stop| stop.within).or(defaults.stop.within) {
            spec = spec.stop_grace(within);
        }
        if let Some(build) = &service.build {
            let words = words(build, service.shell).unwrap_or_default();
            spec = spec.build(words.iter().map(|word| self.text(word)));
        }
        if let Some(watch) = &service.watch {
            let mut files = WatchSpec::new(self.folder(service))
                .paths(&watch.paths)
                .cascade(watch.cascade);
            if let Some(wait) = watch.wait {
                files = files.wait(wait);
            }
            spec = spec.watch(files);
        }
        self.environment(name, spec, service)
    }

    /// The working folder of the service.
    fn folder(&self, service: &Service) -> std::path::PathBuf {
        let directory = self.file.directory();
        match &service.dir {
            Some(dir) => directory.join(dir),
            None => directory.to_owned(),
        }
    }

    fn ready(&self, spec: ServiceSpec, service: &Service, ready: &Ready) -> ServiceSpec {
        let mut probe = if let Some(target) = &ready.http {
            Probe::http(self.text(target))
        } else if let Some(pattern) = &ready.log {
            Probe::log(pattern)
        } else if let Some(command) = &ready.exec {
            let words = words(command, false).unwrap_or_default();
            Probe::exec(words.iter().map(|word| self.text(word)))
        } else if service.port.is_some() || service.external.is_some() {
            Probe::tcp()
        } else {
            Probe::running_for(SETTLED_AFTER)
        }
        .interval(ready.every.unwrap_or(EVERY));
        if let Some(timeout) = ready.timeout {
            probe = probe.timeout(timeout);
        }
        if let Some(failures) = ready.failures {
            probe = probe.failures(failures);
        }
        let spec = spec.ready(probe);
        match ready.start_within {
            Some(limit) => spec.start_timeout(limit),
            None => spec,
        }
    }

    /// Sets the variables from files, then from the shell (which the program inherits anyway), from
    /// Waypost, and from the service itself. Later ones take precedence.
    fn environment(&self, name: &str, spec: ServiceSpec, service: &Service) -> ServiceSpec {
        let mut files: BTreeMap<String, (String, String)> = BTreeMap::new();
        let entries = self
            .file
            .contents()
            .env_files
            .iter()
            .chain(&service.env_files);
        let readable =
            entries.filter_map(|entry| EnvFile::read(self.file.directory(), entry).ok().flatten());
        for file in readable {
            for (variable, value) in file.variables {
                files.insert(variable, (value, file.name.clone()));
            }
        }
        files.retain(|variable, _| std::env::var_os(variable).is_none());

        let mut spec = spec;
        let missing = missing_variables_of(self.file, service);
        if !missing.is_empty() {
            let (verb, pronoun) = match missing.len() {
                1 => ("is", "it"),
                _ => ("are", "them"),
            };
            let place = file_of_variables(self.file);
            spec = spec.blocked(
                format!("{} {verb} not set", missing.join(", ")),
                format!("needs-env requires {pronoun}; add {pronoun} to {place} or set {pronoun} in the shell, and run `waypost up` again"),
            );
        }

        for (variable, (value, file)) in files {
            spec = spec.variable(variable, value, VariableSource::File(file));
        }
        for (variable, value) in self.waypost_variables(name, service) {
            spec = spec.variable(variable, value, VariableSource::Waypost);
        }
        for (variable, value) in &service.env {
            spec = spec.env(variable, self.text(&value.to_string()));
        }
        spec
    }

    fn waypost_variables(&self, name: &str, service: &Service) -> Vec<(String, String)> {
        let Addresses {
            registry_host,
            registry_port,
            ..
        } = self.addresses;
        let mut variables = vec![
            ("SERVICE_DISCOVERY_PROVIDER".to_owned(), "consul".to_owned()),
            ("SERVICE_REGISTRY_HOST".to_owned(), registry_host.clone()),
            (
                "SERVICE_REGISTRY_PORT".to_owned(),
                registry_port.to_string(),
            ),
            (
                "CONSUL_HTTP_ADDR".to_owned(),
                format!("{registry_host}:{registry_port}"),
            ),
        ];
        variables.extend(OVERRIDING.map(|name| (name.to_owned(), String::new())));
        if self.ports.contains_key(name) {
            variables.push(("PORT".to_owned(), "{port}".to_owned()));
        }
        for target in &service.uses {
            let Some(url) = self
                .file
                .contents()
                .services
                .get(target)
                // Not localhost, which may also be [::1], where nothing listens.
                .and_then(|service| self.url(target, service, "127.0.0.1"))
            else {
                continue;
            };
            let url = url.trim_end_matches('/').to_owned();
            let word: String = target
                .chars()
                .map(|c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_ascii_uppercase()
                    } else {
                        '_'
                    }
                })
                .collect();
            variables.push((format!("SERVICE_{word}_URL"), url.clone()));
            variables.push((format!("{word}_URL"), url));
        }
        variables
    }

    /// The URL at which others reach a service: through the gateway if there is one. Services without
    /// HTTP, and those that are not registered, are reached directly.
    fn url(&self, name: &str, service: &Service, host: &str) -> Option<String> {
        let port = self.ports.get(name)?;
        let is_http = || {
            service
                .ready
                .as_ref()
                .is_some_and(|ready| ready.http.is_some())
        };
        if let Some(external) = &service.external
            && !is_http()
        {
            return Some(format!("tcp://{external}"));
        }
        let name = match &service.register {
            Some(Register::Details(details)) => details.name.as_deref().unwrap_or(name),
            _ => name,
        };
        let is_registered = !matches!(service.register, Some(Register::Switch(false)));
        let gateway = self.addresses.gateway_port.filter(|_| is_registered);
        Some(match (gateway, &service.external) {
            (Some(gateway), _) => format!("http://{host}:{gateway}/{name}/"),
            (None, Some(external)) => format!("http://{external}/"),
            (None, None) => format!("http://{host}:{port}/"),
        })
    }

    /// Replaces placeholders for ports of other services in a text.
    fn text(&self, text: &str) -> String {
        expand_service_ports(text, |name| self.ports.get(name).copied())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ports::Ports;
    use crate::probe::Check;
    use crate::service::{Condition, Launch, StopSignal};

    fn parse(directory: &Path, text: &str) -> StackFile {
        match StackFile::parse(&directory.join("waypost.toml"), text) {
            Ok(file) => file,
            Err(error) => panic!("{error}"),
        }
    }

    fn addresses(gateway_port: Option<u16>) -> Addresses {
        Addresses {
            registry_host: "localhost".to_owned(),
            registry_port: 8500,
            gateway_port,
            ports: BTreeMap::new(),
            replicas: BTreeMap::new(),
        }
    }

    /// The descriptions of all services, by name.
    fn specs(text: &str) -> BTreeMap<String, ServiceSpec> {
        specs_in(Path::new("/stack"), text, &addresses(Some(8000)))
    }

    fn specs_in(
        directory: &Path,
        text: &str,
        addresses: &Addresses,
    ) -> BTreeMap<String, ServiceSpec> {
        let specs = services(&parse(directory, text), addresses, |_| true).unwrap();
        let specs = specs.into_iter().map(|spec| (spec.name.clone(), spec));
        specs.collect()
    }

    fn launch(spec: &ServiceSpec) -> Launch {
        spec.validate().unwrap();
        spec.launch(1, &Ports::new(&spec.ports, 1)).unwrap()
    }

    /// The value and the source of a variable.
    fn variable(spec: &ServiceSpec, name: &str) -> Option<(String, VariableSource)> {
        let all = spec.environment(&launch(spec)).into_iter();
        let mut found = all.filter(|(known, ..)| known == name);
        found.next().map(|(_, value, source)| (value, source))
    }

    fn value(spec: &ServiceSpec, name: &str) -> Option<String> {
        variable(spec, name).map(|(value, _)| value)
    }

    #[test]
    fn a_program_has_the_settings_of_its_service_or_the_defaults_of_the_stack() {
        let text = r#"
            [defaults]
            restart = "always"
            stop = { signal = "INT", within = "3s" }
            [services.plain]
            run = "plain --port {port} 'two words'"
            port = 4100
            [services.own]
            run = ["own", "{services.plain.port}"]
            dir = "/"
            replicas = 2
            restart = "never"
            stop = { signal = "KILL", within = "7s" }
            build = "make -C {services.plain.port}"
            watch = { paths = ["*.go"], cascade = true }
            [services.script]
            run = "a | b"
            build = "c && d"
            shell = true
        "#;
        let specs = specs(text);
        let plain = &specs["plain"];
        let started = launch(plain);
        assert_eq!(started.program, "plain");
        assert_eq!(started.args, ["--port", "4100", "two words"]);
        assert_eq!(started.dir.as_deref(), Some(Path::new("/stack")));
        assert_eq!(started.instance, "plain");
        assert_eq!(plain.restart, RestartRule::Always);
        assert_eq!(plain.stop_signal, StopSignal::Int);
        assert_eq!(plain.stop_grace, Duration::from_secs(3));
        assert!(!plain.has_build() && plain.watch.is_none());
        let own = &specs["own"];
        assert_eq!(launch(own).args, ["4100"]);
        assert_eq!(launch(own).dir.as_deref(), Some(Path::new("/")));
        assert_eq!(launch(own).instance, "own-1");
        assert_eq!(own.initial_replicas().count(), 2);
        assert_eq!(own.restart, RestartRule::Never);
        assert_eq!(own.stop_signal, StopSignal::Kill);
        assert_eq!(own.stop_grace, Duration::from_secs(7));
        assert_eq!(own.build_launch().unwrap().args, ["-C", "4100"]);
        assert!(own.watch.as_ref().unwrap().cascade);
        let script = &specs["script"];
        assert_eq!(
            (launch(script).program, launch(script).args),
            ("sh".into(), vec!["-c".to_owned(), "a | b".to_owned()])
        );
        assert_eq!(script.build_launch().unwrap().args, ["-c", "c && d"]);

        let specs = self::specs("[services.web]\nrun = \"web\"\n");
        let web = &specs["web"];
        assert_eq!(web.restart, RestartRule::Crash);
        assert_eq!(web.stop_signal, StopSignal::Term);
        assert_eq!(web.stop_grace, Duration::from_secs(10));
        assert!(web.ports.is_empty());
    }

    #[test]
    fn readiness_is_checked_as_written_or_by_the_port_or_by_a_moment_of_running() {
        let text = |ready: &str| {
            format!(
                "[services.web]\nrun = \"web\"\nport = 80\n{ready}\n[services.db]\nexternal = \"db:5432\"\n"
            )
        };
        for (ready, expected) in [
            ("", "Tcp { host: \"127.0.0.1\", port: 80 }"),
            (
                "ready = { tcp = true }",
                "Tcp { host: \"127.0.0.1\", port: 80 }",
            ),
            ("ready = { http = \"/up\" }", "http://127.0.0.1:80/up"),
            (
                "ready = { http = \"http://localhost:{services.db.port}/up\" }",
                "http://localhost:5432/up",
            ),
            ("ready = { log = \"^up$\" }", "^up$"),
            (
                "ready = { exec = \"pg {services.db.port}\" }",
                "words: [\"pg\", \"5432\"]",
            ),
            ("once = true", "Completed"),
        ] {
            let specs = specs(&text(ready));
            let check = format!("{:?}", launch(&specs["web"]).check);
            assert!(check.contains(expected), "{ready}: {check}");
        }
        let specs = specs("[services.worker]\nrun = \"worker\"\n");
        let worker = &specs["worker"];
        // It has to run for a moment.
        assert!(
            matches!(launch(worker).check, Check::Running(at) if at > tokio::time::Instant::now())
        );
    }

    #[test]
    fn the_times_of_the_checks_are_those_of_the_file() {
        let text = r#"
            [services.a]
            run = "a"
            port = 1
            ready = { tcp = true, every = "7s", timeout = "2s", failures = 5, start-within = "9s" }
            [services.b]
            run = "b"
            [services.c]
            external = "c:1"
        "#;
        let specs = specs(text);
        let times = |name: &str| {
            let timing = specs[name].probe().timing();
            let (interval, timeout) = (timing.interval.as_secs(), timing.timeout.as_secs());
            (
                interval,
                timeout,
                timing.failures,
                specs[name].start_timeout.as_secs(),
            )
        };
        assert_eq!(times("a"), (7, 2, 5, 9));
        assert_eq!(times("b"), (5, 1, 3, 30));
        assert_eq!(times("c"), (5, 1, 3, 3));
    }

    #[test]
    fn a_service_waits_for_others_until_they_are_ready_or_started() {
        let text = r#"
            [services.a]
            run = "a"
            once = true
            [services.b]
            run = "b"
            after = ["a", "a:started", "a:ready", "a:completed"]
            uses = ["a"]
            profiles = ["demo"]
            links = { Docs = "http://docs/" }
        "#;
        let specs = specs(text);
        let b = &specs["b"];
        let after = b.after.iter().map(|it| (it.service.as_str(), it.condition));
        let expected = [
            Condition::Ready,
            Condition::Started,
            Condition::Ready,
            Condition::Ready,
        ];
        assert_eq!(
            after.collect::<Vec<_>>(),
            expected.map(|condition| ("a", condition))
        );
        assert_eq!(b.details.uses, ["a"]);
        assert_eq!(b.details.profiles, ["demo"]);
        assert_eq!(b.details.links["Docs"], "http://docs/");
        assert!(!b.details.built_in);
    }

    #[test]
    fn a_service_is_reached_through_the_gateway_if_it_is_registered_and_has_http() {
        let text = r#"
            [services.web]
            run = "web"
            port = 4100
            [services.named]
            run = "named"
            port = 4200
            register = { name = "other" }
            [services.hidden]
            run = "hidden"
            port = 4300
            register = false
            [services.self]
            run = "self"
            port = 4400
            register = "self"
            [services.postgres]
            external = "db.local:5432"
            [services.search]
            external = "search.local:9200"
            ready = { http = "/" }
            [services.user-api]
            run = "api"
            uses = ["web", "named", "hidden", "self", "postgres", "search", "user-api"]
        "#;
        for (gateway, urls) in [
            (
                Some(8000),
                [
                    ("WEB", "http://127.0.0.1:8000/web"),
                    ("NAMED", "http://127.0.0.1:8000/other"),
                    ("HIDDEN", "http://127.0.0.1:4300"),
                    ("SELF", "http://127.0.0.1:8000/self"),
                    ("POSTGRES", "tcp://db.local:5432"),
                    ("SEARCH", "http://127.0.0.1:8000/search"),
                ],
            ),
            (
                None,
                [
                    ("WEB", "http://127.0.0.1:4100"),
                    ("NAMED", "http://127.0.0.1:4200"),
                    ("HIDDEN", "http://127.0.0.1:4300"),
                    ("SELF", "http://127.0.0.1:4400"),
                    ("POSTGRES", "tcp://db.local:5432"),
                    ("SEARCH", "http://search.local:9200"),
                ],
            ),
        ] {
            let specs = specs_in(Path::new("/stack"), text, &addresses(gateway));
            let api = &specs["user-api"];
            for (word, url) in urls {
                for name in [format!("{word}_URL"), format!("SERVICE_{word}_URL")] {
                    assert_eq!(
                        value(api, &name).as_deref(),
                        Some(url),
                        "{name} {gateway:?}"
                    );
                }
            }
            // It has no port.
            assert_eq!(value(api, "USER_API_URL"), None);
            assert_eq!(api.details.url, None);
            let web = specs["web"].details.url.as_deref();
            let localhost = urls[0].1.replace("127.0.0.1", "localhost") + "/";
            assert_eq!(web, Some(localhost.as_str()));
        }
    }

    #[test]
    fn a_program_finds_the_registry_of_the_stack_and_its_own_port() {
        let text = "[services.web]\nrun = \"web\"\nport = 4100\n[services.worker]\nrun = \"x\"\n";
        let specs = specs(text);
        for (name, expected) in [
            ("SERVICE_DISCOVERY_PROVIDER", "consul"),
            ("SERVICE_REGISTRY_HOST", "localhost"),
            ("SERVICE_REGISTRY_PORT", "8500"),
            ("CONSUL_HTTP_ADDR", "localhost:8500"),
            ("CONSUL_HOST", ""),
            ("SERVICE_DISCOVERY_CONFIG_FILE", ""),
            ("PORT", "4100"),
        ] {
            let found = variable(&specs["web"], name);
            assert_eq!(
                found,
                Some((expected.to_owned(), VariableSource::Waypost)),
                "{name}"
            );
        }
        assert_eq!(value(&specs["worker"], "PORT"), None);
    }

    #[test]
    fn the_service_takes_precedence_over_files_and_later_files_over_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("all.env", "A=all\nB=all\nC=all\nPORT=1\nPATH=/nowhere\n");
        write("web.env", "B={port}\nC=web\n");
        let text = r#"
            env-files = ["all.env", "none.env?"]
            [services.web]
            run = "web"
            port = 4100
            env-files = ["web.env"]
            env = { C = "{port}", D = 1, E = true, F = 1.5 }
        "#;
        let specs = specs_in(dir.path(), text, &addresses(None));
        let web = &specs["web"];
        let file = |name: &str| VariableSource::File(name.to_owned());
        for (name, expected, source) in [
            ("A", "all", file("all.env")),
            // Not written for Waypost, so it is used literally.
            ("B", "{port}", file("web.env")),
            ("C", "4100", VariableSource::Service),
            ("D", "1", VariableSource::Service),
            ("E", "true", VariableSource::Service),
            ("F", "1.5", VariableSource::Service),
            ("PORT", "4100", VariableSource::Waypost),
        ] {
            assert_eq!(
                variable(web, name),
                Some((expected.to_owned(), source)),
                "{name}"
            );
        }
        // The shell has it.
        assert_eq!(variable(web, "PATH"), None);
    }

    #[test]
    fn a_service_is_blocked_by_a_variable_that_is_needed_and_not_set() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), "IN_FILE=1\nEMPTY_IN_FILE=\n").unwrap();
        let blocked = |head: &str, keys: &str| {
            let text = format!("{head}\n[services.web]\nrun = \"web\"\n{keys}\n");
            let specs = specs_in(dir.path(), &text, &addresses(None));
            let blocked = specs["web"].blocked.clone();
            blocked.map(|blocked| (blocked.reason, blocked.advice))
        };
        let files = "env-files = [\".env\"]";
        for (needs, env, missing) in [
            ("\"IN_FILE\"", "A = \"\"", ""),
            ("\"PATH\"", "A = \"\"", ""),
            ("\"OWN\"", "OWN = 1", ""),
            ("\"OWN\"", "OWN = \"\"", "OWN is not set"),
            ("\"EMPTY_IN_FILE\"", "A = 1", "EMPTY_IN_FILE is not set"),
            (
                "\"NO_SUCH\", \"IN_FILE\", \"NEITHER\"",
                "A = 1",
                "NO_SUCH, NEITHER are not set",
            ),
        ] {
            let keys = format!("needs-env = [{needs}]\nenv = {{ {env} }}");
            let reason = blocked(files, &keys).map(|(reason, _)| reason);
            assert_eq!(reason.unwrap_or_default(), missing, "{keys}");
        }
        for (head, needs, expected) in [
            (
                "",
                "\"X\"",
                "requires it; add it to .env or set it in the shell",
            ),
            (
                "env-files = [\".env\", \".env.local?\"]",
                "\"X\", \"Y\"",
                "requires them; add them to .env.local or set them in the shell",
            ),
        ] {
            let (_, advice) = blocked(head, &format!("needs-env = [{needs}]")).unwrap();
            assert!(advice.contains(expected), "{advice}");
        }
        let text =
            "[services.a]\nrun = \"a\"\n[services.b]\nrun = \"b\"\nneeds-env = [\"NO_SUCH\"]\n";
        let missing = crate::stack_file::missing_variables(&parse(dir.path(), text));
        let missing: Vec<_> = missing
            .iter()
            .map(|it| (it.service.as_str(), &it.variables[..], it.file.as_str()))
            .collect();
        assert_eq!(missing, [("b", &["NO_SUCH".to_owned()][..], ".env")]);
    }

    #[test]
    fn given_ports_and_numbers_replace_those_of_the_file() {
        let text = r#"
            [services.web]
            run = "web"
            port = 4100
            replicas = 2
            [services.free]
            run = "free"
            port = 0
            [services.db]
            external = "[::1]:5432"
        "#;
        let mut addresses = addresses(None);
        addresses.ports = BTreeMap::from([("web".to_owned(), 4200), ("db".to_owned(), 1)]);
        addresses.replicas = BTreeMap::from([("web".to_owned(), 3)]);
        let specs = specs_in(Path::new("/stack"), text, &addresses);
        let port = |name: &str| Ports::new(&specs[name].ports, 1).main().unwrap();
        assert_eq!((port("web"), port("db")), (4200, 5432));
        assert_ne!(port("free"), 0);
        assert_eq!(specs["web"].initial_replicas().count(), 3);
        assert_eq!(specs["db"].external.as_deref(), Some("::1"));
    }

    #[test]
    fn services_are_selected_by_name_or_profile_with_their_dependencies() {
        let text = r#"
            [services.db]
            external = "db:1"
            profiles = ["other"]
            [services.orders]
            run = "orders"
            after = ["db:ready"]
            [services.web]
            run = "web"
            after = ["orders:started"]
            profiles = ["ui", "demo"]
            [services.tool]
            run = "tool"
            profiles = ["tools"]
        "#;
        let file = parse(Path::new("/stack"), text);
        let names = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        for (wanted, profiles, alone, expected) in [
            (&[][..], &[][..], false, &["db", "orders"][..]),
            (&[], &["demo"], false, &["db", "orders", "web"]),
            (&[], &["demo"], true, &["orders", "web"]),
            (&["web"], &[], false, &["db", "orders", "web"]),
            (&["web"], &["tools"], true, &["web"]),
            (&["tool"], &[], false, &["tool"]),
        ] {
            let selected = selected(&file, &names(wanted), &names(profiles), alone).unwrap();
            let selected: Vec<_> = selected.into_iter().collect();
            assert_eq!(selected, names(expected), "{wanted:?} {profiles:?}");
        }
        let unknown = selected(&file, &names(&["web", "wbe"]), &[], false);
        assert_eq!(unknown, Err("wbe".to_owned()));
        let specs = services(&file, &addresses(None), |name| name != "tool").unwrap();
        let enabled: Vec<_> = specs
            .iter()
            .map(|spec| (spec.name.as_str(), spec.is_enabled))
            .collect();
        assert_eq!(
            enabled,
            [
                ("db", true),
                ("orders", true),
                ("web", true),
                ("tool", false)
            ]
        );
    }
}
