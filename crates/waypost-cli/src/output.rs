//! Output of the query commands: tables for people, JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};
use waypost::provider::CheckResult;
use waypost::snapshot::{Catalog, Freshness, Snapshot};
use waypost::{Health, Instance, InstanceId, ServiceAddress};

use crate::error::CommandError;
use crate::terminal::{escaped, print_line};

/// The version of the JSON that the query commands print; see `docs/command-line.md`. It is incremented
/// when a field is removed or changes its meaning, not when one is added.
pub(crate) const JSON_SCHEMA: u32 = 1;

/// The instances that match an address, each with its URL.
pub(crate) fn matching<'a>(
    snapshot: &'a Snapshot,
    address: &'a ServiceAddress,
) -> impl Iterator<Item = (&'a Instance, String)> {
    snapshot
        .instances()
        .filter(|instance| address.rank(instance).is_some())
        .filter_map(|instance| Some((&**instance, address.url_at(instance)?)))
}

/// The error for an address that no instance matches.
pub(crate) fn no_match(address: &ServiceAddress) -> CommandError {
    CommandError::Other(format!("no instance matches {address}"))
}

/// A service with the instances that match an address, and the results of their checks.
pub(crate) fn snapshot_json(
    snapshot: &Snapshot,
    address: &ServiceAddress,
    checks: &[CheckResult],
) -> Value {
    let instances = matching(snapshot, address).map(|(instance, url)| {
        let mut value = json!(instance);
        value["url"] = url.into();
        value["checks"] = checks_json(checks, instance.id());
        value
    });
    json!({
        "schema": JSON_SCHEMA,
        "service": snapshot.service(),
        "known": snapshot.is_known(),
        "freshness": freshness_json(snapshot.freshness()),
        "instances": instances.collect::<Vec<_>>(),
    })
}

/// The names of all services.
pub(crate) fn catalog_json(catalog: &Catalog) -> Value {
    json!({
        "schema": JSON_SCHEMA,
        "services": catalog.names(),
        "freshness": freshness_json(catalog.freshness()),
    })
}

/// The checks of one instance.
pub(crate) fn checks_json(checks: &[CheckResult], id: &InstanceId) -> Value {
    let checks = checks.iter().filter(|check| check.instance == *id);
    let values = checks
        .map(|check| json!({ "name": check.name, "health": check.health, "output": check.output }));
    values.collect()
}

pub(crate) fn freshness_json(freshness: &Freshness) -> Value {
    json!({
        "provider": freshness.provider(),
        "generation": freshness.generation(),
        "stale": freshness.is_stale(),
        "age_ms": freshness.age().map(|age| age.as_millis() as u64),
        "error": freshness.failure().map(|failure| failure.error().to_string()),
    })
}

/// Prints a table of a service's instances, followed by the checks that fail, and a line if the data
/// is stale.
pub(crate) fn print_instances(
    snapshot: &Snapshot,
    address: &ServiceAddress,
    checks: &[CheckResult],
) -> Result<(), CommandError> {
    let rows: Vec<[String; 6]> = matching(snapshot, address)
        .map(|(instance, url)| {
            let mut tags = instance.tags().collect::<Vec<_>>().join(",");
            if tags.is_empty() {
                tags.push('-');
            }
            [
                instance.id().to_string(),
                url,
                instance.health().to_string(),
                instance.version().unwrap_or("-").to_owned(),
                instance.weight().to_string(),
                tags,
            ]
        })
        .collect();
    print_table(["ID", "URL", "HEALTH", "VERSION", "WEIGHT", "TAGS"], &rows)?;
    let instances =
        matching(snapshot, address).map(|(instance, _)| (instance.id(), instance.health()));
    print_failing_checks(instances, checks)?;
    print_staleness(snapshot.freshness())
}

/// Prints why instances are not healthy, as far as the registry says.
pub(crate) fn print_failing_checks<'a>(
    instances: impl Iterator<Item = (&'a InstanceId, Health)>,
    checks: &[CheckResult],
) -> Result<(), CommandError> {
    for (id, health) in instances {
        let is_unwell = matches!(health, Health::Warning | Health::Critical);
        let failing = checks
            .iter()
            .filter(|check| is_unwell && check.instance == *id && check.health != Health::Passing);
        for check in failing {
            let output = match check.output.trim() {
                "" => "no output; it has not run yet, or nothing was reported",
                output => output,
            };
            print_line(format_args!(
                "{id} is {health}: check {:?} is {}: {output}",
                check.name, check.health
            ))?;
        }
    }
    Ok(())
}

/// Prints a line if the data is the last known state from a provider that now fails.
pub(crate) fn print_staleness(freshness: &Freshness) -> Result<(), CommandError> {
    let (Some(age), Some(failure)) = (freshness.age(), freshness.failure()) else {
        return Ok(());
    };
    let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
    let error = failure.error();
    print_line(format_args!("stale: last confirmed {age} ago; {error}"))
}

/// Prints rows below a header, with aligned columns.
pub(crate) fn print_table<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
) -> Result<(), CommandError> {
    // Escaped before the widths are known.
    let rows: Vec<_> = rows
        .iter()
        .map(|row| row.each_ref().map(|cell| escaped(cell)))
        .collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    });
    let print_row = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        print_line(padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    print_row(header)?;
    rows.iter()
        .try_for_each(|row| print_row(row.each_ref().map(AsRef::as_ref)))
}
