use std::{process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;
use waypost::{Explanation, ServiceName};

use super::{Outcome, asking::Asking};
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
    #[arg(long, value_name = "NAME", default_value = "round_robin")]
    strategy: String,
    #[command(flatten)]
    asking: Asking,
}

impl Explain {
    /// Succeeds if there is an instance to pick.
    pub(super) async fn run(self) -> Outcome {
        let client = self.asking.client_with_strategy(&self.strategy)?;
        let balancer = client.balancer(&self.service)?;
        balancer.ready().await?;
        let explanation = balancer.explain();
        match self.asking.json {
            true => print_json(&json!(explanation)),
            false => print(&explanation),
        }
        balancer.pick()?;
        Ok(ExitCode::SUCCESS)
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

    let rows: Vec<[String; 6]> = explanation
        .instances
        .iter()
        .map(|instance| {
            let weights = instance.weights.iter();
            let weights = weights.map(|step| format!("{} {:.2}", step.after, step.weight));
            [
                instance.id.to_string(),
                instance.url.clone(),
                instance.health.to_string(),
                json!(instance.fate).as_str().unwrap_or_default().to_owned(),
                weights.collect::<Vec<_>>().join(" > "),
                format!("{:.1} %", instance.share * 100.0),
            ]
        })
        .collect();
    print_table(
        ["ID", "URL", "HEALTH", "FATE", "WEIGHT AFTER", "SHARE"],
        &rows,
    );
}
