//! `waypost deregister`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use tokio::time::timeout;
use waypost::{Error, InstanceId};

use super::output_args::{Format, OutputArgs};
use super::registry_args::RegistryArgs;
use crate::error::{CommandError, CommandResult};
use crate::output::JSON_SCHEMA;
use crate::terminal::print_json;

/// Deregister an instance
///
/// The exit code is 3 if no instance has this ID. With Consul, use the agent that the instance was
/// registered with.
#[derive(Args)]
pub(crate) struct Deregister {
    /// Instance ID, as printed by `waypost instances`
    id: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Deregister {
    pub(super) async fn run(self) -> CommandResult {
        let provider = self.registry.provider()?;
        let registry = provider.registry().map_err(Error::from)?;
        let id = InstanceId::new(self.id);
        let (is_registered, limit) = (registry.is_registered(&id), self.registry.timeout);
        let is_registered = timeout(limit, is_registered).await.map_err(|_| {
            let provider = provider.describe();
            CommandError::Other(format!("no answer from {provider} in {limit:?}"))
        })?;
        if !is_registered.map_err(Error::from)? {
            let provider = provider.describe();
            let hint = if provider.starts_with("kubernetes") {
                "; set KUBERNETES_NAMESPACE if it is in another namespace"
            } else {
                ""
            };
            return Err(CommandError::NothingThere(format!(
                "no instance {:?} is registered with {provider}{hint}",
                id.as_str()
            )));
        }
        registry.deregister(&id).await.map_err(Error::from)?;
        if self.output.format() == Format::Json {
            print_json(&json!({ "schema": JSON_SCHEMA, "deregistered": id }))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
