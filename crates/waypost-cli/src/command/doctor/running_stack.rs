//! The stack of a file, while it runs.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use waypost_runner::control::{Client, ServiceState, ServiceView, StackView, socket_of_file};

use super::finding::Finding;

const SUBJECT: &str = "stack";

/// The time limit for a response of the stack.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The running stack of this file; `None` if it isn't running.
pub(super) async fn running(path: &Path) -> Option<StackView> {
    let socket = socket_of_file(path).ok()?;
    let request = async {
        let mut client = Client::connect(&socket).await.ok()?;
        client.get("/api/stack").await.ok()
    };
    timeout(TIMEOUT, request).await.ok()?
}

/// How many services are ready, and why the others are not.
pub(super) fn examine(stack: &StackView) -> Vec<Finding> {
    let wanted = stack.services.iter();
    let wanted = wanted.filter(|it| it.state != ServiceState::Disabled);
    let (ready, bad): (Vec<_>, Vec<_>) = wanted.partition(|service| {
        matches!(
            service.state,
            ServiceState::Ready | ServiceState::Running | ServiceState::Completed
        )
    });
    let (all, pid) = (ready.len() + bad.len(), stack.pid);
    let what = format!(
        "it runs (pid {pid}): {} of {all} services are ready",
        ready.len()
    );
    let mut findings = vec![Finding::ok(SUBJECT, what)];
    findings.extend(bad.into_iter().map(of_service));
    findings
}

fn of_service(service: &ServiceView) -> Finding {
    let name = &service.name;
    let mut what = format!("{name} is {}", service.state.name());
    if let Some(why) = &service.why {
        what.push_str(": ");
        what.push_str(why);
    }
    if let Some(error) = &service.last_error {
        what.push_str("\nits last error: ");
        what.push_str(error);
    }
    let log = format!("see `waypost logs {name}`");
    let advice = match &service.advice {
        Some(advice) if advice.contains("waypost logs") => advice.clone(),
        Some(advice) => format!("{advice}; {log}"),
        None => log,
    };
    match service.state {
        ServiceState::CrashLooping | ServiceState::Failed | ServiceState::Unreachable => {
            Finding::error(SUBJECT, what, advice)
        }
        _ => Finding::warning(SUBJECT, what, advice),
    }
}

/// Whether a process of this service is running. Its port is then used by the service itself.
pub(super) fn has_process(stack: &StackView, service: &str) -> bool {
    let found = stack.services.iter().find(|it| it.name == service);
    found.is_some_and(|service| service.instances.iter().any(|it| it.pid.is_some()))
}
