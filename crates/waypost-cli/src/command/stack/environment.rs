//! `waypost env` and `waypost exec`

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Args;
use serde_json::json;
use waypost_runner::control::{LaunchView, VariableView};

use super::stack_args::{StackArgs, client_error, name_in_path};
use crate::error::{CommandError, CommandResult};
use crate::style::{Text, Tone, print_texts};
use crate::terminal::print_json;

/// Show the environment that a service is started with, and where each variable comes from
///
/// Values that are likely to be secret are shown as ***.
#[derive(Args)]
pub(crate) struct Env {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Also show the variables of the shell in which `waypost up` was started
    #[arg(short, long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stack: StackArgs,
}

/// Run a command in the folder and with the environment of a service
#[derive(Args)]
pub(crate) struct Exec {
    /// The service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// The command and its arguments [default: the shell]
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<String>,
    #[command(flatten)]
    stack: StackArgs,
}

impl Env {
    pub(super) async fn run(self) -> CommandResult {
        let path = format!("/api/services/{}/environment", name_in_path(&self.service)?);
        let mut client = self.stack.connect().await?;
        let mut variables: Vec<VariableView> = client.get(&path).await.map_err(client_error)?;
        if !self.all {
            variables.retain(|variable| variable.source != "shell");
        }
        if self.json {
            print_json(&json!(variables))?;
            return Ok(ExitCode::SUCCESS);
        }
        for VariableView {
            name,
            value,
            source,
            ..
        } in &variables
        {
            print_texts(&[
                Text::new(format_args!("{name}={value}")),
                Text::toned(Tone::Faint, format_args!("  # {source}")),
            ])?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Exec {
    pub(super) async fn run(self) -> CommandResult {
        let path = format!("/api/services/{}/launch", name_in_path(&self.service)?);
        let mut client = self.stack.connect().await?;
        let launch: LaunchView = client.get(&path).await.map_err(client_error)?;
        let shell = || std::env::var("SHELL").unwrap_or_else(|_| "sh".to_owned());
        let mut words = self.command.into_iter();
        let program = words.next().unwrap_or_else(shell);
        let error = Command::new(&program)
            .args(words)
            .envs(launch.environment)
            .current_dir(&launch.directory)
            .exec();
        Err(CommandError::Other(format!(
            "can't run {program:?}: {error}"
        )))
    }
}
