//! `waypost up --detach`: the same command in the background.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::time::sleep;
use waypost_runner::control::{Client, ServiceState, ServiceView, StackView};

use crate::error::{CommandError, CommandResult};
use crate::terminal::{announce, print_line};

/// The arguments that are not passed on.
const OWN: [&str; 3] = ["-d", "--detach", "--wait"];
/// How often the state of the stack is queried.
const POLL: Duration = Duration::from_millis(50);

/// Starts this same command without `--detach` in the background, with its output in `log`. Returns when
/// its socket responds or, if `wait` is set, when every service is ready or has failed.
///
/// # Errors
/// If the program ends before that. The error is the one that it printed.
pub(super) async fn detach(socket: &Path, log: &Path, wait: bool) -> CommandResult {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let output = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(log)?;
    let arguments: Vec<OsString> = std::env::args_os()
        .skip(1)
        .filter(|argument| !OWN.iter().any(|own| argument == own))
        .collect();
    let mut child = Command::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // Prevents Ctrl-C in this terminal from reaching it.
        .process_group(0)
        .spawn()?;
    let (mut client, stack) = loop {
        // It opens the socket first, and responds once the stack is started.
        if let Ok(mut client) = Client::connect(socket).await
            && let Ok(stack) = client.get::<StackView>("/api/stack").await
        {
            break (client, stack);
        }
        if let Some(status) = child.try_wait()? {
            let message = std::io::read_to_string(File::open(log)?)?;
            let message = message.trim().trim_start_matches("waypost: ");
            return Err(match status.code() {
                Some(2) => CommandError::Invalid(message.to_owned()),
                _ => CommandError::Other(message.to_owned()),
            });
        }
        sleep(POLL).await;
    };
    announce(format_args!(
        "{} runs in the background (pid {}); `waypost ps` shows it, `waypost logs -f` follows it, \
         `waypost down` stops it",
        stack.name, stack.pid
    ));
    if !wait {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        let stack: StackView = client
            .get("/api/stack")
            .await
            .map_err(CommandError::other)?;
        let pending = |service: &&ServiceView| is_pending(service, &stack);
        if stack.services.iter().any(|service| pending(&service)) {
            sleep(POLL).await;
            continue;
        }
        let wanted = stack.services.iter().filter(|service| service.wanted > 0);
        let (ready, failed): (Vec<_>, Vec<_>) = wanted.partition(|it| it.ready == it.wanted);
        for service in &failed {
            let why = service.why.as_deref().unwrap_or("unknown reason");
            print_line(format_args!(
                "{} is {}: {why}",
                service.name,
                service.state.name()
            ))?;
        }
        let total = ready.len() + failed.len();
        print_line(format_args!("{} of {total} ready", ready.len()))?;
        return Ok(if failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
}

/// Whether a service may still become ready without user action.
fn is_pending(service: &ServiceView, stack: &StackView) -> bool {
    match service.state {
        ServiceState::Building | ServiceState::Starting | ServiceState::Stopping => true,
        ServiceState::Running => service.ready < service.wanted,
        ServiceState::Degraded => service
            .instances
            .iter()
            .any(|it| matches!(it.state, ServiceState::Starting | ServiceState::Building)),
        ServiceState::Waiting => service.after.iter().any(|name| {
            let dependency = stack.services.iter().find(|it| it.name == *name);
            dependency.is_some_and(|dependency| {
                dependency.ready == dependency.wanted || is_pending(dependency, stack)
            })
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, state: &str, ready: usize, after: &[&str], instances: &[&str]) -> Value {
        let instance = |state: &&str| json!({ "id": "x", "state": state, "since": "2026-01-31T12:00:00Z", "restarts": 0 });
        json!({
            "name": name, "kind": "process", "state": state, "since": "2026-01-31T12:00:00Z",
            "ready": ready, "wanted": 1, "restarts": 0, "after": after, "uses": [], "links": {},
            "profiles": [], "instances": instances.iter().map(instance).collect::<Vec<_>>(),
        })
    }

    /// Whether the first of these services is pending.
    fn is_first_pending(services: &[Value]) -> bool {
        let stack: StackView = serde_json::from_value(json!({
            "schema": 1, "name": "shop", "directory": "/", "started_at": "2026-01-31T12:00:00Z",
            "event_id": 1, "pid": 1, "registry": "http://r", "services": services,
        }))
        .unwrap();
        is_pending(&stack.services[0], &stack)
    }

    #[test]
    fn a_service_is_waited_for_as_long_as_it_may_become_ready_by_itself() {
        for (state, ready, instances, expected) in [
            ("building", 0, &[][..], true),
            ("starting", 0, &[], true),
            ("stopping", 0, &[], true),
            // A one-time task.
            ("running", 0, &[], true),
            ("running", 1, &[], false),
            ("degraded", 0, &["ready", "starting"], true),
            ("degraded", 0, &["building"], true),
            ("degraded", 0, &["ready", "failed"], false),
            ("ready", 1, &[], false),
            ("completed", 1, &[], false),
            ("failed", 0, &[], false),
            ("crash-looping", 0, &[], false),
            ("unreachable", 0, &[], false),
            ("stopped", 0, &[], false),
            ("disabled", 0, &[], false),
        ] {
            let service = service("web", state, ready, &[], instances);
            assert_eq!(is_first_pending(&[service]), expected, "{state} {ready}");
        }
    }

    #[test]
    fn a_service_that_waits_is_waited_for_if_what_it_waits_for_is() {
        let web = service("web", "waiting", 0, &["db"], &[]);
        for (db, ready, expected) in [
            ("starting", 0, true),
            // It starts any moment now.
            ("ready", 1, true),
            ("failed", 0, false),
        ] {
            let db = service("db", db, ready, &[], &[]);
            assert_eq!(is_first_pending(&[web.clone(), db]), expected);
        }
        let db = service("db", "waiting", 0, &["disk"], &[]);
        for (disk, expected) in [("building", true), ("stopped", false)] {
            let disk = service("disk", disk, 0, &[], &[]);
            assert_eq!(is_first_pending(&[web.clone(), db.clone(), disk]), expected);
        }
        assert!(!is_first_pending(&[web]));
    }
}
