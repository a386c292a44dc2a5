//! `waypost registry status`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tokio::time::Instant;

use crate::command::output_args::{Format, OutputArgs};
use crate::command::registry_args::RegistryArgs;
use crate::error::{CommandError, CommandResult};
use crate::output::{JSON_SCHEMA, counted};
use crate::terminal::{print_json, print_line};

/// Show whether the registry responds
///
/// The exit code is 0 if it responds, 4 if it is unreachable, and 5 if it rejects the token.
#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Status {
    pub(in crate::command) async fn run(self) -> CommandResult {
        let directory = self.registry.directory()?;
        let started = Instant::now();
        let result = directory.catalog().await;
        let elapsed = started.elapsed();
        let provider = directory.provider().describe();
        if self.output.format() == Format::Json {
            print_json(&json!({
                "schema": JSON_SCHEMA,
                "provider": &*provider,
                "answers": result.is_ok(),
                "took_ms": elapsed.as_secs_f64() * 1000.0,
                "services": result.as_ref().ok().map(|catalog| catalog.names().len()),
                "error": result.as_ref().err().map(ToString::to_string),
            }))?;
            return Ok(match result {
                Ok(_) => ExitCode::SUCCESS,
                // The error has been printed as JSON.
                Err(error) => CommandError::Discovery(error).exit_code(),
            });
        }
        let services = result?.names().len();
        if self.output.format() == Format::Name {
            print_line(provider)?;
            return Ok(ExitCode::SUCCESS);
        }
        let services = counted(services, "service");
        print_line(format_args!(
            "{provider} responded in {elapsed:.1?} and lists {services}"
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
