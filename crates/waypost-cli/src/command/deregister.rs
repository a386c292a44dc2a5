//! `waypost deregister`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use waypost::{Error, InstanceId};

use super::registry_args::RegistryArgs;
use crate::error::CommandResult;
use crate::output::print_json;

/// Deregister an instance
#[derive(Args)]
pub(crate) struct Deregister {
    /// Instance ID, as printed by `waypost instances`
    id: String,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Deregister {
    pub(super) async fn run(self) -> CommandResult {
        let provider = self.registry.provider()?;
        let registry = provider.registry().map_err(Error::from)?;
        let id = InstanceId::new(self.id);
        registry.deregister(&id).await.map_err(Error::from)?;
        if self.registry.json {
            print_json(&json!({ "deregistered": id }));
        }
        Ok(ExitCode::SUCCESS)
    }
}
