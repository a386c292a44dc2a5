//! `waypost instances`

use std::process::ExitCode;

use clap::Args;
use waypost::ServiceAddress;

use super::registry_args::RegistryArgs;
use crate::error::CommandResult;
use crate::output::{matching, no_match, print_instances, print_json, snapshot_json};

/// List the instances of a service, healthy or not
#[derive(Args)]
pub(crate) struct Instances {
    /// Service name, or an address such as https+http://_admin.billing
    service: ServiceAddress,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Instances {
    /// Succeeds if an instance matches the address, healthy or not.
    pub(super) async fn run(self) -> CommandResult {
        let directory = self.registry.directory()?;
        let snapshot = directory.lookup(self.service.service()).await?;
        let is_empty = snapshot.instances().len() == 0;
        if self.registry.json {
            print_json(&snapshot_json(&snapshot, &self.service));
        } else if !is_empty {
            print_instances(&snapshot, &self.service);
        }
        match snapshot.usable() {
            Err(error) if is_empty => Err(error.into()),
            _ if matching(&snapshot, &self.service).next().is_none() => {
                Err(no_match(&self.service))
            }
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}
