//! `waypost watch`

use std::process::ExitCode;

use clap::Args;
use waypost::ServiceAddress;

use super::registry_args::RegistryArgs;
use crate::error::CommandResult;
use crate::output::{print_instances, print_json, snapshot_json};

/// Print the instances of a service now and after each change
#[derive(Args)]
pub(crate) struct Watch {
    /// Service name, or an address such as https+http://_admin.billing
    service: ServiceAddress,
    /// Exit after printing this many times [default: run until Ctrl-C]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Watch {
    pub(super) async fn run(self) -> CommandResult {
        let directory = self.registry.directory()?;
        let mut subscription = directory.subscribe(self.service.service());
        // A subscription waits for an unreachable registry; this reports it as an error.
        directory.lookup(self.service.service()).await?;

        let mut printed = None;
        let mut remaining = self.count;
        while remaining != Some(0) {
            let snapshot = subscription.changed().await;
            let freshness = snapshot.freshness();
            let state = (freshness.generation(), freshness.is_stale());
            if printed.replace(state) == Some(state) {
                continue;
            }
            if self.registry.json {
                print_json(&snapshot_json(&snapshot, &self.service));
            } else {
                match snapshot.instances().len() {
                    1 => println!("--- 1 instance"),
                    n => println!("--- {n} instances"),
                }
                print_instances(&snapshot, &self.service);
            }
            remaining = remaining.map(|remaining| remaining - 1);
        }
        Ok(ExitCode::SUCCESS)
    }
}
