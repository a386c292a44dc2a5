//! `waypost services`

use std::process::ExitCode;

use clap::Args;

use super::registry_args::RegistryArgs;
use crate::error::CommandResult;
use crate::output::{catalog_json, print_staleness};
use crate::terminal::{print_json, print_line};

/// List the names of all services
#[derive(Args)]
pub(crate) struct Services {
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Services {
    pub(super) async fn run(self) -> CommandResult {
        let catalog = self.registry.directory()?.catalog().await?;
        if self.registry.json {
            print_json(&catalog_json(&catalog))?;
        } else {
            for name in catalog.names() {
                print_line(name)?;
            }
            print_staleness(catalog.freshness())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
