//! `waypost instances`

use std::process::ExitCode;

use clap::Args;
use waypost::ServiceAddress;

use super::registry_args::{RegistryArgs, service_or_address};
use crate::error::CommandResult;
use crate::output::{matching, no_match, print_instances, snapshot_json};
use crate::terminal::print_json;

/// List the instances of a service, healthy or not
#[derive(Args)]
pub(crate) struct Instances {
    /// Service name, or an address such as https+http://_admin.billing
    #[arg(value_parser = service_or_address)]
    service: ServiceAddress,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Instances {
    /// Succeeds if an instance matches the address, healthy or not.
    pub(super) async fn run(self) -> CommandResult {
        let directory = self.registry.directory()?;
        let service = self.service.service();
        let snapshot = directory.lookup(service).await?;
        let is_empty = snapshot.instances().len() == 0;
        let checks = self.registry.check_results(&directory, service).await;
        if self.registry.json {
            print_json(&snapshot_json(&snapshot, &self.service, &checks))?;
        } else if !is_empty {
            print_instances(&snapshot, &self.service, &checks)?;
        }
        match snapshot.usable() {
            Err(error) if is_empty => Err(self.registry.with_suggestion(&directory, error).await),
            _ if matching(&snapshot, &self.service).next().is_none() => {
                Err(no_match(&self.service))
            }
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}
