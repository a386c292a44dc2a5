use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{sleep, timeout};
use waypost::{
    ActiveCheck, Balancer, BalancerOptions, ExplainedInstance, Explanation, Fate, ServiceName,
};

use super::Outcome;
use super::asking::Asking;
use crate::output::{print_json, print_table};

/// Tell what becomes of each instance of a service, and why
///
/// It shows what a client that starts now makes of the service. What a running client has learned
/// by its own calls, such as which instances it has ejected, only that client can tell: the gateway
/// does at /internal/routes.
#[derive(Args)]
pub(crate) struct Explain {
    /// The service's name
    service: ServiceName,
    /// The strategy to explain
    #[arg(
        long,
        value_name = "NAME",
        env = "SERVICE_DISCOVERY_STRATEGY",
        default_value = "round_robin"
    )]
    strategy: String,
    /// The zone to explain it for
    #[arg(long, value_name = "ZONE", env = "SERVICE_DISCOVERY_ZONE")]
    zone: Option<String>,
    /// Check each instance once from here: tcp, or http:/health for that path
    #[arg(long, value_name = "CHECK", env = "SERVICE_DISCOVERY_ACTIVE_CHECK")]
    check: Option<ActiveCheck>,
    #[command(flatten)]
    asking: Asking,
}

/// How soon all instances are checked once.
const AT_ONCE: Duration = Duration::from_millis(100);

impl Explain {
    /// Succeeds if there is an instance to pick.
    pub(super) async fn run(self) -> Outcome {
        let mut client = (self.asking.client_builder()?).strategy_named(&self.strategy);
        if let Some(zone) = self.zone {
            client = client.balancing(BalancerOptions::default().zone(zone));
        }
        let checks = self.check.is_some();
        if let Some(check) = self.check {
            client = client.active_check(check.every(AT_ONCE).with_fall(1));
        }
        let balancer = client.build()?.balancer(&self.service)?;
        balancer.ready().await?;
        if checks {
            // What isn't known by then is shown as not known.
            let _ = timeout(self.asking.timeout(), all_checked(&balancer)).await;
        }
        let explanation = balancer.explain();
        match self.asking.json {
            true => print_json(&json!(explanation)),
            false => print(&explanation),
        }
        balancer.pick()?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn all_checked(balancer: &Balancer) {
    let is_checked = |instance: &ExplainedInstance| {
        instance.check.is_some() || matches!(instance.fate, Fate::Critical | Fate::Draining)
    };
    while !balancer.explain().instances.iter().all(is_checked) {
        sleep(AT_ONCE / 4).await;
    }
}

fn print(explanation: &Explanation) {
    let age = explanation.age_seconds.unwrap_or_default();
    println!("service   {}", explanation.service);
    println!("provider  {}", explanation.provider);
    match &explanation.failure {
        None => println!("answer    live, number {}", explanation.generation),
        Some(failure) => {
            let age = humantime::format_duration(Duration::from_secs(age as u64));
            println!("answer    {age} old: {failure}");
        }
    }
    println!("strategy  {}", explanation.strategy);
    println!("healthy   {} of {}", explanation.healthy, explanation.known);
    if explanation.panic {
        println!("panic     too few are healthy, so all that answer at all are used");
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
                check(instance),
                json!(instance.fate).as_str().unwrap_or_default().to_owned(),
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
            "FATE",
            "WEIGHT AFTER",
            "SHARE",
        ],
        &rows,
    );
}

/// What our own check said of it, if one was made.
fn check(instance: &ExplainedInstance) -> String {
    match instance.check.as_ref().map(|check| &check.failure) {
        None => "-".to_owned(),
        Some(None) => "passes".to_owned(),
        Some(Some(failure)) => failure.to_string(),
    }
}
