//! `waypost open`

use std::process::{Command, ExitCode, Stdio};

use clap::Args;
use waypost_runner::control::StackView;

use super::stack_args::{StackArgs, client_error};
use crate::error::{CommandError, CommandResult};
use crate::suggest::closest;
use crate::terminal::print_line;

/// Open the dashboard, or a service, in the browser
///
/// Prints the address as well, for a machine without a browser.
#[derive(Args)]
pub(crate) struct Open {
    /// The service [default: the dashboard]
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    stack: StackArgs,
}

impl Open {
    pub(super) async fn run(self) -> CommandResult {
        let mut client = self.stack.connect().await?;
        let stack: StackView = client.get("/api/stack").await.map_err(client_error)?;
        let url = match &self.service {
            Some(name) => service_url(&stack, name)?,
            None => dashboard_url(&mut client, &stack).await?,
        };
        print_line(&url)?;
        open_in_browser(&url);
        Ok(ExitCode::SUCCESS)
    }
}

fn service_url(stack: &StackView, name: &str) -> Result<String, CommandError> {
    let service = stack.services.iter().find(|service| service.name == name);
    let service = service.ok_or_else(|| {
        let names = stack.services.iter().map(|service| service.name.as_str());
        let advice = closest(name, names).map(|meant| format!("; did you mean {meant}?"));
        let advice = advice.unwrap_or_default();
        CommandError::NothingThere(format!("the stack has no service {name:?}{advice}"))
    })?;
    // Uses the service's own address: its pages may not work below the gateway's prefix.
    let own = service
        .address
        .as_ref()
        .map(|address| format!("http://{address}/"));
    own.ok_or_else(|| CommandError::NothingThere(format!("{name} has no port to open")))
}

/// The link with the token of the session.
async fn dashboard_url(
    client: &mut waypost_runner::control::Client,
    stack: &StackView,
) -> Result<String, CommandError> {
    let dashboard = stack
        .dashboard
        .as_ref()
        .ok_or_else(|| CommandError::NothingThere(format!("`{}` has no dashboard", stack.name)))?;
    let link: String = client
        .get("/api/dashboard-link")
        .await
        .map_err(client_error)?;
    Ok(if link.is_empty() {
        dashboard.clone()
    } else {
        link
    })
}

/// Opens a URL with the system's program for URLs, if there is one.
pub(crate) fn open_in_browser(url: &str) {
    let program = match std::env::var_os("BROWSER").filter(|program| !program.is_empty()) {
        Some(program) => program,
        None if cfg!(target_os = "macos") => "open".into(),
        None => "xdg-open".into(),
    };
    let _ = Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_service_is_opened_at_its_own_address() {
        let service = |name: &str, address: Option<&str>| {
            json!({
                "name": name, "kind": "process", "state": "ready", "since": "", "ready": 1,
                "wanted": 1, "restarts": 0, "after": [], "uses": [], "links": {}, "profiles": [],
                "instances": [], "address": address, "url": "http://localhost:8000/web/",
            })
        };
        let stack: StackView = serde_json::from_value(json!({
            "schema": 1, "name": "shop", "directory": "/", "started_at": "", "event_id": 1, "pid": 1,
            "registry": "http://r",
            "services": [service("worker", None), service("web", Some("localhost:4100"))],
        }))
        .unwrap();
        assert_eq!(
            service_url(&stack, "web").unwrap(),
            "http://localhost:4100/"
        );
        for (name, expected) in [
            ("worker", "worker has no port to open"),
            ("wbe", "the stack has no service \"wbe\"; did you mean web?"),
            ("database", "the stack has no service \"database\""),
        ] {
            match service_url(&stack, name) {
                Err(CommandError::NothingThere(message)) => assert_eq!(message, expected),
                result => panic!("{result:?}"),
            }
        }
    }
}
