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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, state: &str, more: Value) -> Value {
        let mut service = json!({
            "name": name, "kind": "process", "state": state, "since": "", "ready": 0, "wanted": 1,
            "restarts": 0, "after": [], "uses": [], "links": {}, "profiles": [], "instances": [],
        });
        for (key, value) in more.as_object().unwrap() {
            service[key] = value.clone();
        }
        service
    }

    fn stack(services: &[Value]) -> StackView {
        serde_json::from_value(json!({
            "schema": 1, "name": "shop", "directory": "/", "started_at": "", "event_id": 1, "pid": 7,
            "registry": "http://r", "services": services,
        }))
        .unwrap()
    }

    #[test]
    fn the_services_that_are_not_ready_are_listed_with_their_reasons() {
        let none = || json!({});
        let more = json!({ "why": "exited", "last_error": "no key", "advice": "add the key" });
        let logs = json!({ "advice": "see its output: waypost logs slow" });
        let stack = stack(&[
            service("web", "ready", none()),
            service("worker", "running", none()),
            service("migrate", "completed", none()),
            service("off", "disabled", none()),
            service("pay", "failed", more),
            service("slow", "degraded", logs),
            service("late", "waiting", none()),
        ]);
        let findings: Vec<_> = examine(&stack).iter().map(|it| format!("{it:?}")).collect();
        let expected: [&[&str]; 4] = [
            &["severity: Ok", "it runs (pid 7): 3 of 6 services are ready"],
            &[
                "severity: Error",
                "pay is failed: exited\\nits last error: no key",
                "advice: \"add the key; see `waypost logs pay`\"",
            ],
            &[
                "severity: Warning",
                "what: \"slow is degraded\"",
                "advice: \"see its output: waypost logs slow\"",
            ],
            &[
                "severity: Warning",
                "late is waiting",
                "advice: \"see `waypost logs late`\"",
            ],
        ];
        assert_eq!(findings.len(), expected.len(), "{findings:#?}");
        for (finding, parts) in findings.iter().zip(expected) {
            for part in parts {
                assert!(finding.contains(part), "no {part:?} in {finding}");
            }
        }
    }

    #[test]
    fn a_service_with_a_process_uses_its_port_itself() {
        let instance = |pid: Option<u32>| {
            let instance =
                json!({ "id": "x", "state": "ready", "since": "", "restarts": 0, "pid": pid });
            json!({ "instances": [instance] })
        };
        let stack = stack(&[
            service("web", "ready", instance(Some(7))),
            service("stopped", "stopped", instance(None)),
        ]);
        assert!(has_process(&stack, "web"));
        assert!(!has_process(&stack, "stopped"));
        assert!(!has_process(&stack, "other"));
    }
}
