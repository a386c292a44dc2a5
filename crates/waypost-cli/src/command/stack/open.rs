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
