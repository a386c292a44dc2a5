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
    /// HTTP are reached directly.
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
        Some(match self.addresses.gateway_port {
            Some(gateway) => format!("http://{host}:{gateway}/{name}/"),
            None => format!("http://{host}:{port}/"),
        })
    }

    /// Replaces placeholders for ports of other services in a text.
    fn text(&self, text: &str) -> String {
        expand_service_ports(text, |name| self.ports.get(name).copied())
    }
}
