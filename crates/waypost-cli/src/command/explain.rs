//! `waypost explain`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{sleep, timeout};
use waypost::balance::{BalancerOptions, ExplainedInstance, Explanation, Selection};
use waypost::{ActiveCheck, Balancer, ServiceName};

use super::registry_args::RegistryArgs;
use crate::error::CommandResult;
use crate::output::{print_json, print_table};

/// Show which instances of a service the load balancer uses, and why
///
/// Shows the decision of a client that starts now. What a running client has learned from its own
/// calls, such as ejected instances, is known to that client only; the gateway reports it at
/// /internal/routes.
#[derive(Args)]
pub(crate) struct Explain {
    /// Service name
    service: ServiceName,
    /// Load-balancing strategy
    #[arg(
        long,
        value_name = "NAME",
        env = "SERVICE_DISCOVERY_STRATEGY",
        default_value = "round_robin"
    )]
    strategy: String,
    /// Zone of the client
    #[arg(long, value_name = "ZONE", env = "SERVICE_DISCOVERY_ZONE")]
    zone: Option<String>,
    /// Check each instance once from this machine: tcp, or http:/health for an HTTP path
    #[arg(long, value_name = "CHECK", env = "SERVICE_DISCOVERY_ACTIVE_CHECK")]
    check: Option<ActiveCheck>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Short enough for all instances to be checked right away.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Explain {
    /// Succeeds if there is an instance to pick.
    pub(super) async fn run(self) -> CommandResult {
        let mut client = self
            .registry
            .client_builder()?
            .strategy_named(&self.strategy);
        if let Some(zone) = self.zone {
            client = client.balancing(BalancerOptions::default().zone(zone));
        }
        let has_check = self.check.is_some();
        if let Some(check) = self.check {
            client = client.active_check(check.every(CHECK_INTERVAL).with_fall(1));
        }
        let balancer = client.build()?.balancer(&self.service)?;
        balancer.ready().await?;
        if has_check {
            // Checks that have not finished by then are printed as `-`.
            let _ = timeout(self.registry.timeout, all_checked(&balancer)).await;
        }
        let explanation = balancer.explain();
        if self.registry.json {
            print_json(&json!(explanation));
        } else {
            print(&explanation);
        }
        balancer.pick()?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn all_checked(balancer: &Balancer) {
    let is_checked = |instance: &ExplainedInstance| {
        instance.check.is_some()
            || matches!(
                instance.selection,
                Selection::Critical | Selection::Draining
            )
    };
    while !balancer.explain().instances.iter().all(is_checked) {
        sleep(CHECK_INTERVAL / 4).await;
    }
}

fn print(explanation: &Explanation) {
    println!("service   {}", explanation.service);
    println!("provider  {}", explanation.provider);
    match &explanation.failure {
        None => println!("snapshot  live, generation {}", explanation.generation),
        Some(failure) => {
            let age = explanation.age_seconds.unwrap_or_default() as u64;
            let age = humantime::format_duration(Duration::from_secs(age));
            println!("snapshot  {age} old: {failure}");
        }
    }
    println!("strategy  {}", explanation.strategy);
    println!("healthy   {} of {}", explanation.healthy, explanation.known);
    if explanation.panic {
        println!("panic     too few instances are healthy, so ejections are ignored");
    }
    println!();

    let rows: Vec<[String; 7]> = explanation
        .instances
        .iter()
        .map(|instance| {
            let weights = instance.weights.iter();
            let weights = weights.map(|step| format!("{} {:.2}", step.after, step.weight));
            [
                instance.id.to_string(),
                instance.url.clone(),
                instance.health.to_string(),
                check_result(instance),
                json!(instance.selection)
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                weights.collect::<Vec<_>>().join(" > "),
                format!("{:.1} %", instance.share * 100.0),
            ]
        })
        .collect();
    print_table(
        [
            "ID",
            "URL",
            "HEALTH",
            "CHECK",
            "SELECTION",
            "WEIGHT AFTER",
            "SHARE",
        ],
        &rows,
    );
}

/// The result of `--check`, or `-` if there is none.
fn check_result(instance: &ExplainedInstance) -> String {
    match instance.check.as_ref().map(|check| &check.failure) {
        None => "-".to_owned(),
        Some(None) => "passes".to_owned(),
        Some(Some(failure)) => failure.to_string(),
    }
}
