use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use waypost::ServiceName;

use super::{Outcome, asking::Asking};
use crate::output::{catalog_json, print_instances, print_json, print_staleness, snapshot_json};

#[derive(Args)]
pub(crate) struct Services {
    #[command(flatten)]
    asking: Asking,
}

impl Services {
    pub(super) async fn run(self) -> Outcome {
        let catalog = self.asking.directory()?.catalog().await?;
        if self.asking.json {
            print_json(&catalog_json(&catalog));
            return Ok(ExitCode::SUCCESS);
        }
        for name in catalog.names() {
            println!("{name}");
        }
        print_staleness(catalog.freshness());
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
pub(crate) struct Instances {
    /// The service's name
    service: ServiceName,
    #[command(flatten)]
    asking: Asking,
}

impl Instances {
    /// Succeeds if there is an instance, healthy or not.
    pub(super) async fn run(self) -> Outcome {
        let snapshot = self.asking.directory()?.lookup(&self.service).await?;
        if self.asking.json {
            print_json(&snapshot_json(&snapshot));
        } else if snapshot.instances().len() > 0 {
            print_instances(&snapshot);
        }
        match snapshot.usable() {
            Err(error) if snapshot.instances().len() == 0 => Err(error.into()),
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

#[derive(Args)]
pub(crate) struct Resolve {
    /// The service's name
    service: ServiceName,
    /// A path to join to the URL
    #[arg(long, default_value = "")]
    path: String,
    #[command(flatten)]
    asking: Asking,
}

impl Resolve {
    pub(super) async fn run(self) -> Outcome {
        let pick = self.asking.client()?.pick(&self.service).await?;
        let url = pick.url_for(&self.path);
        if self.asking.json {
            let instance = &**pick.endpoint().instance();
            print_json(&json!({ "url": url, "instance": instance }));
        } else {
            println!("{url}");
        }
        Ok(ExitCode::SUCCESS)
    }
}
