//! The stack file, and the ports that `waypost up` uses.

use std::path::Path;

use waypost_runner::stack_file::{
    Contents, FILE_NAME, StackFile, StackFileError, missing_variables,
};

use super::finding::Finding;
use super::ports::{self, Wanted};
use super::running_stack;
use crate::output::counted;

const SUBJECT: &str = "stack";
const ROUTES: &str = "routes";

/// Examines the stack file of this folder, if there is one, and the ports.
pub(super) async fn examine(findings: &mut Vec<Finding>) {
    let folder = std::env::current_dir().unwrap_or_default();
    let file = StackFile::find(&folder);
    let Some(path) = file else {
        let what = format!("no {FILE_NAME} here: `waypost up` runs the sample");
        findings.push(Finding::ok(SUBJECT, what));
        let samples = [
            ("registry", 8500),
            ("gateway", 8000),
            ("ui", 3000),
            ("ai-models", 8002),
        ];
        let wanted = samples.map(|(user, port)| Wanted {
            user: user.to_owned(),
            port,
            option: format!("`waypost up --port {user}=PORT`"),
        });
        findings.extend(ports::examine(&wanted));
        return;
    };
    match StackFile::read(&path) {
        Ok(file) => examine_file(&file, findings).await,
        Err(StackFileError::Invalid(problems)) => {
            for problem in problems {
                let advice = "correct it; `waypost check` checks the file alone";
                findings.push(Finding::error(SUBJECT, problem.to_string(), advice));
            }
        }
        Err(error) => {
            let advice = "make it readable, or name another with -f";
            findings.push(Finding::error(SUBJECT, error.to_string(), advice));
        }
    }
}

async fn examine_file(file: &StackFile, findings: &mut Vec<Finding>) {
    let contents = file.contents();
    let (path, name) = (file.path().display(), file.name());
    let services = counted(contents.services.len(), "service");
    let what = format!("{path}: the stack `{name}`, {services}");
    findings.push(Finding::ok(SUBJECT, what));
    if let Some(routes) = file.routes() {
        findings.push(routes_finding(&routes));
    }
    for missing in missing_variables(file) {
        let (service, place) = (&missing.service, &missing.file);
        for variable in &missing.variables {
            let what = format!("{service} needs {variable}, which is not set");
            let advice = format!("add {variable}=… to {place}, or set it in the shell");
            findings.push(Finding::error("variables", what, advice));
        }
    }
    let path = file.path();
    let mut wanted = wanted_ports(contents, path);
    if let Some(stack) = running_stack::running(path).await {
        findings.extend(running_stack::examine(&stack));
        wanted.retain(|port| !running_stack::has_process(&stack, &port.user));
    }
    findings.extend(ports::examine(&wanted));
}

/// Whether the routes file that the stack file names is valid.
fn routes_finding(routes: &Path) -> Finding {
    let path = routes.display();
    match waypost_gateway::check_routes(routes) {
        Ok(count) => Finding::ok(ROUTES, format!("{path}: {}", counted(count, "route"))),
        Err(error) => {
            let advice =
                format!("correct it; `waypost gateway --check {path}` checks the file alone");
            Finding::error(ROUTES, error.to_string(), advice)
        }
    }
}

/// The ports of the services and of Waypost itself.
fn wanted_ports(contents: &Contents, path: &Path) -> Vec<Wanted> {
    let path = path.display();
    let built_in = &contents.waypost;
    let starts_registry = matches!(&*built_in.registry, "embedded" | "consul");
    let of_waypost = [
        (
            "registry",
            "registry-port",
            starts_registry.then_some(built_in.registry_port),
        ),
        ("gateway", "gateway", built_in.gateway.port()),
        ("dashboard", "dashboard", built_in.dashboard.port()),
    ];
    let of_waypost = of_waypost.into_iter().filter_map(|(user, key, port)| {
        Some(Wanted {
            user: user.to_owned(),
            port: port?,
            option: format!("`{key}` in [waypost] of {path}"),
        })
    });
    let services = contents.services.iter();
    let of_services = services.filter_map(|(name, service)| {
        let port = service.port.filter(|port| *port != 0)?;
        service.external.is_none().then(|| Wanted {
            user: name.clone(),
            port,
            option: format!("`port` in [services.{name}] of {path}"),
        })
    });
    of_waypost.chain(of_services).collect()
}
