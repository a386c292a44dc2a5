use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use waypost::{Balancer, Pick, ServiceAddress};

use super::Outcome;
use super::asking::Asking;
use crate::failure::Failure;
use crate::output::{
    catalog_json, meant, print_instances, print_json, print_staleness, snapshot_json,
};

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
    /// The service's name, or an address such as https+http://_admin.billing
    service: ServiceAddress,
    #[command(flatten)]
    asking: Asking,
}

impl Instances {
    /// Succeeds if there is an instance, healthy or not.
    pub(super) async fn run(self) -> Outcome {
        let directory = self.asking.directory()?;
        let snapshot = directory.lookup(self.service.service()).await?;
        if self.asking.json {
            print_json(&snapshot_json(&snapshot, &self.service));
        } else if snapshot.instances().len() > 0 {
            print_instances(&snapshot, &self.service);
        }
        match snapshot.usable() {
            Err(error) if snapshot.instances().len() == 0 => Err(error.into()),
            _ if meant(&snapshot, &self.service).next().is_none() => Err(misfit(&self.service)),
            _ => Ok(ExitCode::SUCCESS),
        }
    }
}

#[derive(Args)]
pub(crate) struct Resolve {
    /// The service's name, or an address such as https+http://_admin.billing
    service: ServiceAddress,
    /// A path to join to the URL
    #[arg(long, default_value = "")]
    path: String,
    #[command(flatten)]
    asking: Asking,
}

impl Resolve {
    pub(super) async fn run(self) -> Outcome {
        let address = match self.path.trim_start_matches('/') {
            "" => self.service,
            path => format!("{}/{path}", self.service).parse()?,
        };
        let balancer = self.asking.client()?.balancer(address.service())?;
        balancer.ready().await?;
        let (pick, url) = fitting(&balancer, &address)?;
        if self.asking.json {
            let instance = &**pick.endpoint().instance();
            print_json(&json!({ "url": url, "instance": instance }));
        } else {
            println!("{url}");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// An instance that the address means, and its URL there: one of those that suit best.
fn fitting(balancer: &Balancer, address: &ServiceAddress) -> Result<(Pick, String), Failure> {
    let mut pick = balancer.pick()?;
    let ready = pick.snapshot().ready().iter();
    let best = ready
        .filter_map(|endpoint| address.rank(endpoint.instance()))
        .min();
    let suits = |pick: &Pick| match (best, address.rank(pick)) {
        (Some(best), rank) => rank == Some(best),
        // None is ready, so it is one that is only used then.
        (None, rank) => rank.is_some(),
    };
    let mut others = Vec::new();
    loop {
        let url = address.url_at(&pick);
        if let Some(url) = url.filter(|_| suits(&pick)) {
            return Ok((pick, url));
        }
        if others.contains(pick.id()) {
            return Err(misfit(address));
        }
        others.push(pick.id().clone());
        pick = balancer.pick_except(&others)?;
    }
}

fn misfit(address: &ServiceAddress) -> Failure {
    Failure::other(format!("no instance fits {address}"))
}
