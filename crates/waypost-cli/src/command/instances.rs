//! `waypost instances`

use std::process::ExitCode;

use clap::Args;
use waypost::ServiceAddress;

use super::output_args::{Format, OutputArgs};
use super::registry_args::{RegistryArgs, service_or_address};
use crate::completion;
use crate::error::CommandResult;
use crate::output::{matching, no_match, print_instances, snapshot_json};
use crate::terminal::{print_json, print_line};

/// List the instances of a service, and why some are not healthy
#[derive(Args)]
pub(crate) struct Instances {
    /// Service name, or an address such as https+http://_admin.billing
    #[arg(value_parser = service_or_address, add = completion::services())]
    service: ServiceAddress,
    #[command(flatten)]
    output: OutputArgs,
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
        let format = self.output.format();
        if format == Format::Name {
            for (instance, _) in matching(&snapshot, &self.service) {
                print_line(instance.id())?;
            }
        } else {
            let checks = self.registry.check_results(&directory, service).await;
            if format == Format::Json {
                print_json(&snapshot_json(&snapshot, &self.service, &checks))?;
            } else if !is_empty {
                print_instances(&snapshot, &self.service, &checks, format == Format::Wide)?;
            }
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
