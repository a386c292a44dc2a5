//! `waypost agent leftovers`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use waypost_agent::{deregister_stale_instances, stale_instances};

use super::agent_args::AgentArgs;
use crate::command::output_args::{Format, OutputArgs};
use crate::error::{CommandError, CommandResult};
use crate::output::JSON_SCHEMA;
use crate::style::{Column, Table, Text};
use crate::terminal::{print_json, print_line};

/// List the instances whose process has ended, and optionally deregister them
///
/// A process that is killed does not deregister. Its instance is listed if it is on this machine,
/// none of its checks pass, and either nothing listens on its port or its heartbeats have stopped.
#[derive(Args)]
pub(super) struct StaleInstances {
    /// Deregister the listed instances
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    agent: AgentArgs,
}

impl StaleInstances {
    pub(super) async fn run(self) -> CommandResult {
        let (url, token) = (self.agent.url(), self.agent.token()?);
        let token = token.as_deref();
        let found = stale_instances(&url, token)
            .await
            .map_err(CommandError::other)?;
        if self.clear {
            deregister_stale_instances(&url, token, &found)
                .await
                .map_err(CommandError::other)?;
        }
        let format = self.output.format();
        if format == Format::Name {
            for instance in &found {
                print_line(&instance.id)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        if format == Format::Json {
            let listed: Vec<_> = found
                .iter()
                .map(|instance| {
                    json!({
                        "id": instance.id,
                        "service": instance.service,
                        "address": instance.address,
                        "why": instance.why,
                    })
                })
                .collect();
            print_json(&json!({
                "schema": JSON_SCHEMA,
                "leftovers": listed,
                "cleared": self.clear,
            }))?;
            return Ok(ExitCode::SUCCESS);
        }
        if !found.is_empty() {
            let columns = [
                Column::new("SERVICE").can_shrink(),
                Column::new("ID"),
                Column::new("ADDRESS").wide_only(),
                Column::new("WHY").can_shrink(),
            ];
            let mut table = Table::new(&columns, format == Format::Wide);
            for instance in &found {
                table.row([
                    Text::new(&instance.service),
                    Text::new(&instance.id),
                    Text::new(&instance.address),
                    Text::new(&instance.why),
                ]);
            }
            table.print()?;
        }
        match found.len() {
            0 => print_line("no stale instances")?,
            count if self.clear => print_line(format_args!("deregistered: {count}"))?,
            count => print_line(format_args!(
                "stale: {count}; deregister with `waypost agent leftovers --clear`"
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
