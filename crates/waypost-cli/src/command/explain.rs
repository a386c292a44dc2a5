//! `waypost explain`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use waypost::balance::{BalancerOptions, ExplainedInstance, Explanation, Selection};
use waypost::provider::CheckResult;
use waypost::snapshot::Snapshot;
use waypost::{ActiveCheck, Balancer, ServiceName};

use super::output_args::{Format, OutputArgs};
use super::registry_args::RegistryArgs;
use crate::completion;
use crate::error::{CommandError, CommandResult};
use crate::output::{JSON_SCHEMA, checks_json, print_reasons, rounded, why_json};
use crate::style::{Column, Table, Text, Tone};
use crate::terminal::{print_json, print_line};

/// Show which instances of a service the load balancer uses, and why
///
/// Shows the decision of a client that starts now. The state of a running client, such as ejected
/// instances, is known only to that client; the gateway reports its own at /internal/routes.
#[derive(Args)]
pub(crate) struct Explain {
    /// Service name
    #[arg(add = completion::services())]
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
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Short, so that all instances are checked at once.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);

impl Explain {
    /// Succeeds if the balancer has an instance to pick.
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
        let client = client.build()?;
        let balancer = client.balancer(&self.service)?;
        balancer.ready().await?;
        if has_check {
            // Checks that have not finished by then are printed as `-`.
            let _ = timeout(self.registry.timeout, all_checked(&balancer)).await;
        }
        let explanation = balancer.explain();
        let directory = client.directory();
        let checks = self.registry.check_results(directory, &self.service).await;
        let snapshot = directory.lookup(&self.service).await?;
        match self.output.format() {
            Format::Json => print_json(&explanation_json(&explanation, &snapshot, &checks))?,
            Format::Name => {
                let instances = explanation.instances.iter();
                for instance in instances.filter(|it| it.selection == Selection::Used) {
                    print_line(&instance.id)?;
                }
            }
            format => print(&explanation, &snapshot, &checks, format == Format::Wide)?,
        }
        match balancer.pick() {
            Ok(_) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(self.registry.with_suggestion(directory, error).await),
        }
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

/// Converts the explanation to JSON with the field names of the other commands.
fn explanation_json(
    explanation: &Explanation,
    snapshot: &Snapshot,
    checks: &[CheckResult],
) -> Value {
    let mut value = json!(explanation);
    let Some(fields) = value.as_object_mut() else {
        return value;
    };
    for moved in ["provider", "generation", "age_seconds", "failure", "known"] {
        fields.remove(moved);
    }
    let age = explanation.age_seconds.map(|age| (age * 1000.0) as u64);
    let is_known = !explanation.instances.is_empty();
    fields.insert("schema".into(), JSON_SCHEMA.into());
    fields.insert("known".into(), is_known.into());
    fields.insert("eligible".into(), explanation.known.into());
    fields.insert(
        "freshness".into(),
        json!({
            "provider": explanation.provider,
            "generation": explanation.generation,
            "stale": explanation.failure.is_some(),
            "age_ms": age,
            "error": explanation.failure,
        }),
    );
    let instances = fields.get_mut("instances").and_then(Value::as_array_mut);
    for (value, instance) in instances.into_iter().flatten().zip(&explanation.instances) {
        value["checks"] = checks_json(checks, &instance.id);
        let found = snapshot.instances().find(|it| *it.id() == instance.id);
        value["why"] = found.map_or(Value::Null, |found| {
            why_json(found, checks, &explanation.provider)
        });
        in_milliseconds(value, "latency_seconds", "latency_ms");
        if let Some(ejection) = value.get_mut("ejection") {
            in_milliseconds(ejection, "seconds_left", "left_ms");
        }
    }
    value
}

/// Converts a field in seconds to one in milliseconds.
fn in_milliseconds(value: &mut Value, from: &str, to: &str) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    let seconds = fields.remove(from);
    let milliseconds = seconds.and_then(|it| it.as_f64()).map(|it| it * 1000.0);
    fields.insert(to.into(), json!(milliseconds));
}

fn print(
    explanation: &Explanation,
    snapshot: &Snapshot,
    checks: &[CheckResult],
    is_wide: bool,
) -> Result<(), CommandError> {
    print_line(format_args!("service   {}", explanation.service))?;
    print_line(format_args!("provider  {}", explanation.provider))?;
    match &explanation.failure {
        None => {
            let generation = explanation.generation;
            print_line(format_args!("snapshot  live, generation {generation}"))?;
        }
        Some(failure) => {
            let age = explanation.age_seconds.unwrap_or_default() as u64;
            let age = rounded(Duration::from_secs(age));
            print_line(format_args!("snapshot  {age} old: {failure}"))?;
        }
    }
    print_line(format_args!("strategy  {}", explanation.strategy))?;
    let (healthy, known) = (explanation.healthy, explanation.known);
    print_line(format_args!("healthy   {healthy} of {known}"))?;
    if explanation.panic {
        print_line("panic     too few instances are healthy, so ejections are ignored")?;
    }
    print_line("")?;

    let mut table = Table::new(
        &[
            Column::new("ID").can_shrink(),
            Column::new("URL"),
            Column::new("HEALTH"),
            Column::new("CHECK").can_shrink(),
            Column::new("SELECTION"),
            Column::new("ZONE").wide_only(),
            Column::new("WEIGHT AFTER").can_shrink(),
            Column::number("SHARE"),
        ],
        is_wide,
    );
    for instance in &explanation.instances {
        let weights = instance.weights.iter();
        let weights = weights.map(|step| format!("{} {:.2}", step.after, step.weight));
        let selection = json!(instance.selection);
        table.row([
            Text::new(&instance.id),
            Text::new(&instance.url),
            Text::toned(instance.health.into(), instance.health),
            check_result(instance),
            Text::new(selection.as_str().unwrap_or_default()),
            Text::or_none(instance.zone.as_deref()),
            Text::new(weights.collect::<Vec<_>>().join(" > ")),
            Text::new(format_args!("{:.1} %", instance.share * 100.0)),
        ]);
    }
    table.print()?;
    for instance in snapshot.instances() {
        print_reasons(instance, checks, &explanation.provider, is_wide)?;
    }
    Ok(())
}

/// The result of `--check`, or `-` if there is none.
fn check_result(instance: &ExplainedInstance) -> Text {
    match instance.check.as_ref().map(|check| &check.failure) {
        None => Text::none(),
        Some(None) => Text::toned(Tone::Good, "passes"),
        Some(Some(failure)) => Text::toned(Tone::Bad, failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_seconds_becomes_one_in_milliseconds() {
        let converted = |mut value: Value| {
            in_milliseconds(&mut value, "latency_seconds", "latency_ms");
            value
        };
        for (value, expected) in [
            (
                json!({ "latency_seconds": 0.25, "a": 1 }),
                json!({ "latency_ms": 250.0, "a": 1 }),
            ),
            (
                json!({ "latency_seconds": null }),
                json!({ "latency_ms": null }),
            ),
            (json!({}), json!({ "latency_ms": null })),
            (json!(null), json!(null)),
        ] {
            assert_eq!(converted(value), expected);
        }
    }
}
