//! `waypost watch`

use std::process::ExitCode;

use clap::Args;
use waypost::ServiceAddress;

use super::output_args::{Format, OutputArgs};
use super::registry_args::{RegistryArgs, service_or_address};
use crate::completion;
use crate::error::CommandResult;
use crate::output::{counted, print_instances, snapshot_json};
use crate::runtime::log_outages;
use crate::terminal::{print_json, print_line};

/// Print the instances of a service now and after each change
#[derive(Args)]
pub(crate) struct Watch {
    /// Service name, or an address such as https+http://_admin.billing
    #[arg(value_parser = service_or_address, add = completion::services())]
    service: ServiceAddress,
    /// Exit after printing the instances N times [default: run until Ctrl-C]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Watch {
    pub(super) async fn run(self) -> CommandResult {
        let directory = self.registry.directory()?;
        let mut subscription = directory.subscribe(self.service.service());
        // A subscription waits for an unreachable registry; this reports it as an error.
        directory.lookup(self.service.service()).await?;
        log_outages();

        let mut printed = None;
        let mut remaining = self.count;
        while remaining != Some(0) {
            let snapshot = subscription.changed().await;
            let freshness = snapshot.freshness();
            let state = (freshness.generation(), freshness.is_stale());
            if printed.replace(state) == Some(state) {
                continue;
            }
            let service = self.service.service();
            let checks = self.registry.check_results(&directory, service).await;
            match self.output.format() {
                Format::Json => print_json(&snapshot_json(&snapshot, &self.service, &checks))?,
                Format::Name => {
                    let ids = snapshot.instances().map(|instance| instance.id().as_str());
                    print_line(ids.collect::<Vec<_>>().join(" "))?;
                }
                format => {
                    let instances = counted(snapshot.instances().len(), "instance");
                    print_line(format_args!("--- {instances}"))?;
                    let is_wide = format == Format::Wide;
                    print_instances(&snapshot, &self.service, &checks, is_wide)?;
                }
            }
            remaining = remaining.map(|remaining| remaining - 1);
        }
        Ok(ExitCode::SUCCESS)
    }
}
