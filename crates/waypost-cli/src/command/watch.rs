use std::process::ExitCode;

use clap::Args;
use waypost::ServiceAddress;

use super::Outcome;
use super::asking::Asking;
use crate::output::{print_instances, print_json, snapshot_json};

#[derive(Args)]
pub(crate) struct Watch {
    /// The service's name, or an address such as https+http://_admin.billing
    service: ServiceAddress,
    /// End after this many changes; without it, at Ctrl-C
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    asking: Asking,
}

impl Watch {
    pub(super) async fn run(self) -> Outcome {
        let directory = self.asking.directory()?;
        let mut subscription = directory.subscribe(self.service.service());
        // Without this a registry that can't be reached would look like one that says nothing.
        directory.lookup(self.service.service()).await?;

        let mut told = None;
        let mut left = self.count;
        while left != Some(0) {
            let snapshot = subscription.changed().await;
            let freshness = snapshot.freshness();
            let now = (freshness.generation(), freshness.is_stale());
            if told.replace(now) == Some(now) {
                continue;
            }
            if self.asking.json {
                print_json(&snapshot_json(&snapshot, &self.service));
            } else {
                match snapshot.instances().len() {
                    1 => println!("--- 1 instance"),
                    n => println!("--- {n} instances"),
                }
                print_instances(&snapshot, &self.service);
            }
            left = left.map(|left| left - 1);
        }
        Ok(ExitCode::SUCCESS)
    }
}
