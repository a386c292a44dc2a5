//! `waypost start`, `stop`, `restart`, `scale` and `down`

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::sleep;
use waypost_runner::control::{ClientError, StackView};

use super::stack_args::{StackArgs, client_error, name_in_path};
use crate::error::{CommandError, CommandResult};
use crate::terminal::print_line;

/// Start services that were stopped, or were not started with the stack
///
/// Returns when they are ready.
#[derive(Args)]
pub(crate) struct Start {
    /// Services or instances
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    #[command(flatten)]
    stack: StackArgs,
}

/// Stop services; the others keep running
///
/// Returns when they have exited. They stay stopped until `waypost start`.
#[derive(Args)]
pub(crate) struct Stop {
    /// Services or instances
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    #[command(flatten)]
    stack: StackArgs,
}

/// Restart only the named services
///
/// Returns when they are ready. The instances of a service are restarted one after the other.
#[derive(Args)]
pub(crate) struct Restart {
    /// Services or instances
    #[arg(value_name = "SERVICE", required = true)]
    services: Vec<String>,
    /// Also restart the services that depend on them
    #[arg(long)]
    cascade: bool,
    #[command(flatten)]
    stack: StackArgs,
}

/// Change the number of instances of a service
///
/// Returns when the new ones are ready and the surplus ones have exited.
#[derive(Args)]
pub(crate) struct Scale {
    /// The service and the number; can be repeated
    #[arg(value_name = "NAME=N", required = true)]
    scales: Vec<ScaleTo>,
    #[command(flatten)]
    stack: StackArgs,
}

/// Stop the whole stack
#[derive(Args)]
pub(crate) struct Down {
    #[command(flatten)]
    stack: StackArgs,
}

#[derive(Clone, Debug)]
struct ScaleTo {
    name: String,
    replicas: u32,
}

impl FromStr for ScaleTo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, replicas) = text.split_once('=').ok_or("use NAME=N, such as orders=3")?;
        Ok(Self {
            name: name.to_owned(),
            replicas: replicas
                .parse()
                .map_err(|_| "N in NAME=N must be a number from 0")?,
        })
    }
}

impl Start {
    pub(super) async fn run(self) -> CommandResult {
        for name in &self.services {
            act(&self.stack, name, "start", &json!({}), "started").await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Stop {
    pub(super) async fn run(self) -> CommandResult {
        for name in &self.services {
            act(&self.stack, name, "stop", &json!({}), "stopped").await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Restart {
    pub(super) async fn run(self) -> CommandResult {
        let body = json!({ "cascade": self.cascade });
        for name in &self.services {
            act(&self.stack, name, "restart", &body, "restarted").await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Scale {
    pub(super) async fn run(self) -> CommandResult {
        for ScaleTo { name, replicas } in &self.scales {
            let body = json!({ "replicas": replicas });
            act(
                &self.stack,
                name,
                "scale",
                &body,
                &format!("scaled to {replicas}"),
            )
            .await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Down {
    pub(super) async fn run(self) -> CommandResult {
        let mut client = self.stack.connect().await?;
        let stack: StackView = client.get("/api/stack").await.map_err(client_error)?;
        match client.post("/api/down", &json!({})).await {
            // It may stop before it has responded.
            Ok(()) | Err(ClientError::Connection(_)) => {}
            Err(error) => return Err(client_error(error)),
        }
        // The socket is removed when the last program has exited.
        while self.stack.connect().await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
        print_line(format_args!("{} is down", stack.name))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Performs an action on a service, waits until it is done, and prints the result.
async fn act(
    stack: &StackArgs,
    name: &str,
    action: &str,
    body: &Value,
    done: &str,
) -> Result<(), CommandError> {
    let path = format!("/api/services/{}/{action}?wait=true", name_in_path(name)?);
    let mut client = stack.connect().await?;
    client.post(&path, body).await.map_err(client_error)?;
    print_line(format_args!("{name} {done}"))
}
