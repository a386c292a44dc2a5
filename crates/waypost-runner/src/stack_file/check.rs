//! Checks a stack file whose keys and types are valid.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::document::{Document, Step};
use super::env_file::{EnvFile, EnvFileError};
use super::format::{CommandLine, Contents, PortOrOff, Ready, Service};
use super::template::{ServicePort, service_ports};
use crate::text::closest;

/// The names of the services that Waypost itself runs.
pub(super) const BUILT_IN: [&str; 3] = ["registry", "gateway", "dashboard"];

/// Checks the contents, and adds any problems to those of the document. `names` are the names of all
/// services, including the ones that could not be read.
pub(super) fn check(
    document: &mut Document<'_>,
    directory: &Path,
    contents: &Contents,
    names: &[String],
) {
    let mut checker = Checker {
        document,
        directory,
        contents,
        names,
    };
    checker.built_in();
    for (index, entry) in contents.env_files.iter().enumerate() {
        checker.env_file(&["env-files".into(), index.into()], entry);
    }
    checker.ports();
    for name in names {
        checker.name(name);
    }
    for (name, service) in &contents.services {
        checker.service(name, service);
    }
    checker.cycles();
}

/// Splits an entry of `after` into the name of the service and the condition.
pub(super) fn split_dependency(entry: &str) -> (&str, Option<&str>) {
    match entry.split_once(':') {
        Some((name, condition)) => (name, Some(condition)),
        None => (entry, None),
    }
}

/// The words of a command.
///
/// # Errors
/// What is wrong with it.
pub(super) fn words(command: &CommandLine, shell: bool) -> Result<Vec<String>, &'static str> {
    let words = match (command, shell) {
        (CommandLine::Line(line), true) if !line.trim().is_empty() => {
            vec!["sh".to_owned(), "-c".to_owned(), line.clone()]
        }
        (CommandLine::Words(_), true) => {
            return Err("a list is run without a shell; write a string, or remove `shell`");
        }
        (CommandLine::Line(line), _) => shlex::split(line)
            .ok_or("a quote is not closed, or the last character is a backslash")?,
        (CommandLine::Words(words), false) => words.clone(),
    };
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err("the command is empty"),
    }
}

/// The host and port of an `external` service.
pub(super) fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_host = !host.is_empty() && !host.contains(['/', ' ', '@']);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    is_host.then_some((host, port))
}

struct Checker<'c, 't> {
    document: &'c mut Document<'t>,
    directory: &'c Path,
    contents: &'c Contents,
    names: &'c [String],
}

impl<'c> Checker<'c, '_> {
    fn problem(&mut self, path: &[Step<'_>], message: impl Into<String>) {
        self.document.problem(path, message);
    }

    /// A problem with a key of a service.
    fn in_service(&mut self, name: &str, path: &[Step<'_>], message: impl Into<String>) {
        let mut whole = vec!["services".into(), name.into()];
        whole.extend_from_slice(path);
        self.problem(&whole, message);
    }

    fn built_in(&mut self) {
        let built_in = &self.contents.waypost;
        let registry = built_in.registry.as_str();
        if !matches!(registry, "embedded" | "consul") && host_and_port(registry).is_none() {
            let message =
                format!("{registry:?} is not a registry; use embedded, consul or HOST:PORT");
            self.problem(&["waypost".into(), "registry".into()], message);
        }
        for (key, port) in [
            ("gateway", built_in.gateway),
            ("dashboard", built_in.dashboard),
        ] {
            let message = match port {
                PortOrOff::Port(0) => "a port is a number from 1 to 65535",
                PortOrOff::Switch(true) => "expected a port from 1 to 65535, or false",
                _ => continue,
            };
            self.problem(&["waypost".into(), key.into()], message);
        }
        if let Some(routes) = &built_in.routes {
            let file = self.directory.join(routes);
            let message = if built_in.gateway.port().is_none() {
                "there is no gateway to use it, because `gateway` is false".to_owned()
            } else if !file.is_file() {
                format!("there is no file {}", file.display())
            } else {
                return;
            };
            self.problem(&["waypost".into(), "routes".into()], message);
        }
    }

    fn name(&mut self, name: &str) {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        let is_valid = name.len() <= 200
            && name.starts_with(is_word)
            && name.ends_with(is_word)
            && name.chars().all(|c| is_word(c) || "-_.".contains(c));
        if !is_valid {
            let message = format!(
                "{name:?} is not a service name; use letters, digits, `-`, `_` and `.`, with a \
                 letter or digit at both ends"
            );
            self.in_service(name, &[], message);
        } else if BUILT_IN.contains(&name) {
            let message = format!(
                "`{name}` is the name of a service that Waypost itself runs; choose another name"
            );
            self.in_service(name, &[], message);
        }
    }

    /// Checks that no fixed port is used twice.
    fn ports(&mut self) {
        let built_in = &self.contents.waypost;
        let mut users: BTreeMap<u16, String> = BTreeMap::new();
        if host_and_port(&built_in.registry).is_none() {
            users.insert(built_in.registry_port, "the registry".to_owned());
        }
        for (port, user, key) in [
            (built_in.gateway.port(), "the gateway", "gateway"),
            (built_in.dashboard.port(), "the dashboard", "dashboard"),
        ] {
            if let Some(port) = port
                && let Some(other) = users.insert(port, user.to_owned())
            {
                let message = format!("port {port} is also used by {other}");
                self.problem(&["waypost".into(), key.into()], message);
            }
        }
        for name in self.names {
            let Some(service) = self.contents.services.get(name) else {
                continue;
            };
            let Some(port) = service.port.filter(|port| *port != 0) else {
                continue;
            };
            if let Some(other) = users.insert(port, format!("`{name}`")) {
                let message = format!("port {port} is also used by {other}; use another one, or 0");
                self.in_service(name, &["port".into()], message);
            }
        }
    }

    fn service(&mut self, name: &str, service: &Service) {
        self.kind(name, service);
        let run = service.run.as_ref().map(|run| ("run", run));
        let build = service.build.as_ref().map(|build| ("build", build));
        for (key, command) in run.into_iter().chain(build) {
            match words(command, service.shell) {
                Ok(words) => {
                    for word in &words {
                        self.template(name, service, &[key.into()], word);
                    }
                }
                Err(problem) => self.in_service(name, &[key.into()], problem),
            }
        }
        if let Some(dir) = &service.dir
            && !self.directory.join(dir).is_dir()
        {
            let message = format!("there is no folder {}", self.directory.join(dir).display());
            self.in_service(name, &["dir".into()], message);
        }
        if service.replicas == Some(0) {
            self.in_service(name, &["replicas".into()], "at least 1 instance is needed");
        }
        self.references(name, service);
        if let Some(ready) = &service.ready {
            self.ready(name, service, ready);
        }
        for (variable, value) in &service.env {
            let path = ["env".into(), variable.as_str().into()];
            if variable.is_empty() || variable.contains(['=', '\0']) {
                let message = format!("{variable:?} is not the name of a variable");
                self.in_service(name, &path, message);
            }
            self.template(name, service, &path, &value.to_string());
        }
        for (index, entry) in service.env_files.iter().enumerate() {
            let path = [
                "services".into(),
                name.into(),
                "env-files".into(),
                index.into(),
            ];
            self.env_file(&path, entry);
        }
        if let Some(watch) = &service.watch {
            for (index, pattern) in watch.paths.iter().enumerate() {
                if let Err(error) = crate::watch::Patterns::new(self.directory, [pattern]) {
                    let path = ["watch".into(), "paths".into(), index.into()];
                    self.in_service(
                        name,
                        &path,
                        format!("{pattern:?} is not a pattern: {error}"),
                    );
                }
            }
        }
    }

    /// Checks that a service is a program, a one-time task or external, and that its keys are valid for
    /// that.
    fn kind(&mut self, name: &str, service: &Service) {
        let given = |is_given: bool, key: &'static str| is_given.then_some(key);
        if let Some(external) = &service.external {
            if host_and_port(external).is_none() {
                let message = format!(
                    "{external:?} is not an address; use HOST:PORT, such as localhost:5432"
                );
                self.in_service(name, &["external".into()], message);
            }
            let unfit = [
                given(service.run.is_some(), "run"),
                given(service.build.is_some(), "build"),
                given(service.watch.is_some(), "watch"),
                given(service.port.is_some(), "port"),
                given(service.replicas.is_some(), "replicas"),
                given(service.once, "once"),
                given(service.restart.is_some(), "restart"),
                given(service.stop.is_some(), "stop"),
                given(service.dir.is_some(), "dir"),
            ];
            for key in unfit.into_iter().flatten() {
                let message = format!(
                    "`{key}` has no meaning for an external service, which Waypost doesn't start"
                );
                self.in_service(name, &[key.into()], message);
            }
            return;
        }
        if service.run.is_none() {
            let message = format!(
                "`{name}` has neither `run` (a program to start) nor `external` (the HOST:PORT of \
                 one that runs already)"
            );
            self.in_service(name, &[], message);
        }
        if service.once {
            let unfit = [
                given(service.replicas.is_some(), "replicas"),
                given(service.ready.is_some(), "ready"),
                given(service.restart.is_some(), "restart"),
                given(service.open, "open"),
            ];
            for key in unfit.into_iter().flatten() {
                let message = format!("`{key}` has no meaning for a one-time task (`once = true`)");
                self.in_service(name, &[key.into()], message);
            }
        }
        if service.open && service.port.is_none() {
            self.in_service(name, &["open".into()], "there is no `port` to open");
        }
    }

    fn references(&mut self, name: &str, service: &Service) {
        for (index, entry) in service.after.iter().enumerate() {
            let path = ["after".into(), index.into()];
            let (target, condition) = split_dependency(entry);
            if let Some(condition) = condition
                && !matches!(condition, "started" | "ready" | "completed")
            {
                let message = format!(
                    "{condition:?} is not a condition; use {target}:started, {target}:ready or \
                     {target}:completed"
                );
                self.in_service(name, &path, message);
            }
            let known = self.reference(name, &path, target);
            let is_step = |service: &Service| service.once;
            if known
                && condition == Some("completed")
                && !self.contents.services.get(target).is_none_or(is_step)
            {
                let message = format!("`{target}` never completes: it has no `once = true`");
                self.in_service(name, &path, message);
            }
        }
        for (index, target) in service.uses.iter().enumerate() {
            self.reference(name, &["uses".into(), index.into()], target);
        }
    }

    /// Checks that a service with this name exists.
    fn reference(&mut self, name: &str, path: &[Step<'_>], target: &str) -> bool {
        if self.names.iter().any(|known| known == target) {
            return true;
        }
        let message = match closest(target, self.names.iter().map(String::as_str)) {
            Some(meant) => format!("there is no service `{target}`; did you mean `{meant}`?"),
            None => format!(
                "there is no service `{target}`; the services are {}",
                self.names.join(", ")
            ),
        };
        self.in_service(name, path, message);
        false
    }

    fn ready(&mut self, name: &str, service: &Service, ready: &Ready) {
        let kinds = [
            ready.http.is_some(),
            ready.tcp.is_some(),
            ready.log.is_some(),
            ready.exec.is_some(),
        ];
        if kinds.into_iter().filter(|given| *given).count() > 1 {
            let message = "only one of http, tcp, log and exec can decide";
            self.in_service(name, &["ready".into()], message);
        }
        let has_port = service.port.is_some() || service.external.is_some();
        if let Some(target) = &ready.http {
            let path = ["ready".into(), "http".into()];
            if !target.starts_with('/') && !target.starts_with("http://") {
                let message = format!(
                    "{target:?} is neither a path such as \"/health\" nor an address that begins \
                     with http://"
                );
                self.in_service(name, &path, message);
            } else if target.starts_with('/') && !has_port {
                self.in_service(name, &path, "there is no `port` to send the request to");
            }
            self.template(name, service, &path, target);
        }
        if ready.tcp == Some(false) {
            let path = ["ready".into(), "tcp".into()];
            self.in_service(name, &path, "use true, or another kind of check");
        } else if ready.tcp.is_some() && !has_port {
            let path = ["ready".into(), "tcp".into()];
            self.in_service(name, &path, "there is no `port` to connect to");
        }
        if let Some(pattern) = &ready.log {
            let path = ["ready".into(), "log".into()];
            if service.external.is_some() {
                self.in_service(name, &path, "an external service has no output here");
            }
            if let Err(error) = regex::Regex::new(pattern) {
                let error = error.to_string();
                let last = error.lines().last().unwrap_or_default();
                let message = format!("{pattern:?} is not a regular expression: {last}");
                self.in_service(name, &path, message);
            }
        }
        if let Some(command) = &ready.exec {
            let path = ["ready".into(), "exec".into()];
            match words(command, false) {
                Ok(words) => {
                    for word in &words {
                        self.template(name, service, &path, word);
                    }
                }
                Err(problem) => self.in_service(name, &path, problem),
            }
        }
        if ready.failures == Some(0) {
            let path = ["ready".into(), "failures".into()];
            self.in_service(name, &path, "at least 1 failure is needed");
        }
    }

    /// Checks the placeholders of a text.
    fn template(&mut self, name: &str, service: &Service, path: &[Step<'_>], text: &str) {
        if text.contains("{port}") && service.port.is_none() && service.external.is_none() {
            let message = format!(
                "{{port}} is used, but `{name}` has no port; add `port = 0` for any free one"
            );
            self.in_service(name, path, message);
        }
        for reference in service_ports(text) {
            match reference {
                ServicePort::Of(target) => {
                    let known = self.reference(name, path, target);
                    let has_port =
                        |service: &Service| service.port.is_some() || service.external.is_some();
                    if known && !self.contents.services.get(target).is_none_or(has_port) {
                        self.in_service(name, path, format!("`{target}` has no port"));
                    }
                }
                ServicePort::Malformed(text) => {
                    let message =
                        format!("{text} is not a placeholder; use {{services.NAME.port}}");
                    self.in_service(name, path, message);
                }
            }
        }
    }

    fn env_file(&mut self, path: &[Step<'_>], entry: &str) {
        match EnvFile::read(self.directory, entry) {
            Ok(_) => {}
            Err(EnvFileError::Missing(file)) => {
                let message = format!(
                    "there is no file {}; write {:?} if it may be missing",
                    file.display(),
                    format!("{entry}?")
                );
                self.problem(path, message);
            }
            Err(EnvFileError::Unreadable(file, error)) => {
                self.problem(path, format!("can't read {}: {error}", file.display()));
            }
            Err(EnvFileError::Invalid(problem)) => self.document.add(problem),
        }
    }

    /// Checks that no service depends on itself, directly or indirectly.
    fn cycles(&mut self) {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        for name in self.names {
            let mut path = Vec::new();
            if let Some(cycle) = find_cycle(self.contents, name, &mut path, &mut done) {
                // The entry of the last service that closes the cycle.
                let last = cycle[cycle.len() - 2];
                let first = cycle[cycle.len() - 1];
                let after = &self.contents.services[last].after;
                let index = after.iter().position(|it| split_dependency(it).0 == first);
                let message = format!(
                    "these services wait for each other, so none of them could start: {}",
                    cycle.join(" -> ")
                );
                let entry = ["after".into(), index.unwrap_or_default().into()];
                let last = last.to_owned();
                self.in_service(&last, &entry, message);
            }
        }
    }
}

/// A depth-first search for a cycle that can be reached from `name`. The last name repeats the first.
fn find_cycle<'c>(
    contents: &'c Contents,
    name: &str,
    path: &mut Vec<&'c str>,
    done: &mut BTreeSet<&'c str>,
) -> Option<Vec<&'c str>> {
    let (name, service) = contents.services.get_key_value(name)?;
    if let Some(start) = path.iter().position(|visited| visited == name) {
        let mut cycle = path.split_off(start);
        cycle.push(name);
        return Some(cycle);
    }
    if !done.insert(name) {
        return None;
    }
    path.push(name);
    for entry in &service.after {
        let cycle = find_cycle(contents, split_dependency(entry).0, path, done);
        if cycle.is_some() {
            return cycle;
        }
    }
    path.pop();
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_split_into_words_or_run_by_a_shell() {
        let line = |text: &str| CommandLine::Line(text.to_owned());
        let list = |words: &[&str]| {
            CommandLine::Words(words.iter().map(|word| (*word).to_owned()).collect())
        };
        for (command, shell, expected) in [
            (
                line("npm run 'dev server'"),
                false,
                Ok(&["npm", "run", "dev server"][..]),
            ),
            // The shell reads the quotes itself.
            (line("it's > out"), true, Ok(&["sh", "-c", "it's > out"])),
            (list(&["npm", "run 'dev"]), false, Ok(&["npm", "run 'dev"])),
            (
                line("it's"),
                false,
                Err("a quote is not closed, or the last character is a backslash"),
            ),
            (
                list(&["npm"]),
                true,
                Err("a list is run without a shell; write a string, or remove `shell`"),
            ),
            (line("  "), false, Err("the command is empty")),
            (line("  "), true, Err("the command is empty")),
            (line("'' x"), false, Err("the command is empty")),
            (list(&[]), false, Err("the command is empty")),
            (list(&["", "x"]), false, Err("the command is empty")),
        ] {
            let expected = expected.map(|words| words.iter().map(ToString::to_string).collect());
            assert_eq!(words(&command, shell), expected, "{command:?}");
        }
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for (text, expected) in [
            ("localhost:5432", Some(("localhost", 5432))),
            ("[::1]:5432", Some(("::1", 5432))),
            ("localhost", None),
            (":5432", None),
            ("[]:5432", None),
            ("localhost:0", None),
            ("localhost:65536", None),
            ("http://localhost:80", None),
            ("me@localhost:80", None),
            ("local host:80", None),
        ] {
            assert_eq!(host_and_port(text), expected, "{text}");
        }
    }
}
