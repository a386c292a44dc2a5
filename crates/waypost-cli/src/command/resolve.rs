//! `waypost resolve`

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use waypost::{Balancer, Pick, ServiceAddress};

use super::output_args::{Format, OutputArgs};
use super::registry_args::RegistryArgs;
use crate::completion;
use crate::error::{CommandError, CommandResult};
use crate::output::{JSON_SCHEMA, no_match};
use crate::terminal::{print_json, print_line};

/// Print the URL of an instance chosen by the load balancer
#[derive(Args)]
pub(crate) struct Resolve {
    /// Service name, or an address such as https+http://_admin.billing
    #[arg(add = completion::services())]
    service: ServiceAddress,
    /// Path that is appended to the URL
    #[arg(long, default_value = "")]
    path: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Resolve {
    pub(super) async fn run(self) -> CommandResult {
        let address = match self.path.trim_start_matches('/') {
            "" => self.service,
            path => format!("{}/{path}", self.service).parse()?,
        };
        let client = self.registry.client_builder()?.build()?;
        let balancer = client.balancer(address.service())?;
        let ready = balancer.ready().await;
        let picked = ready
            .map_err(Into::into)
            .and_then(|_| pick_matching(&balancer, &address));
        let (pick, url) = match picked {
            Ok(picked) => picked,
            Err(CommandError::Discovery(error)) => {
                return Err(self
                    .registry
                    .with_suggestion(client.directory(), error)
                    .await);
            }
            Err(error) => return Err(error),
        };
        let instance = &**pick.endpoint().instance();
        match self.output.format() {
            Format::Json => {
                print_json(&json!({ "schema": JSON_SCHEMA, "url": url, "instance": instance }))?;
            }
            Format::Name => print_line(instance.id())?,
            Format::Table => print_line(&url)?,
            Format::Wide => print_line(format_args!("{url}  {}", instance.id()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Picks among the instances that match the address best, and returns the URL of the one picked.
fn pick_matching(
    balancer: &Balancer,
    address: &ServiceAddress,
) -> Result<(Pick, String), CommandError> {
    let mut pick = balancer.pick()?;
    let ready = pick.snapshot().ready().iter();
    let best_rank = ready
        .filter_map(|endpoint| address.rank(endpoint.instance()))
        .min();
    let is_match = |pick: &Pick| match (best_rank, address.rank(pick)) {
        (Some(best), rank) => rank == Some(best),
        // No ready instance matches, so any other match will do.
        (None, rank) => rank.is_some(),
    };
    let mut rejected = Vec::new();
    loop {
        if is_match(&pick)
            && let Some(url) = address.url_at(&pick)
        {
            return Ok((pick, url));
        }
        // The balancer returns a rejected instance only if there is no other.
        if rejected.contains(pick.id()) {
            return Err(no_match(address));
        }
        rejected.push(pick.id().clone());
        pick = balancer.pick_except(&rejected)?;
    }
}
