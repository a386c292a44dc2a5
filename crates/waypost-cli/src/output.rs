//! Output of the query commands: tables for people, JSON for programs.

use std::time::Duration;

use serde_json::{Value, json};
use waypost::snapshot::{Catalog, Freshness, Snapshot};
use waypost::{Instance, ServiceAddress};

use crate::error::CommandError;

/// Prints JSON on one line, so that a stream of values can be read line by line.
pub(crate) fn print_json(value: &Value) {
    println!("{value}");
}

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

/// A service with the instances that match an address.
pub(crate) fn snapshot_json(snapshot: &Snapshot, address: &ServiceAddress) -> Value {
    let instances = matching(snapshot, address).map(|(instance, url)| {
        let mut instance = json!(instance);
        instance["url"] = url.into();
        instance
    });
    json!({
        "service": snapshot.service(),
        "known": snapshot.is_known(),
        "freshness": freshness_json(snapshot.freshness()),
        "instances": instances.collect::<Vec<_>>(),
    })
}

/// The names of all services.
pub(crate) fn catalog_json(catalog: &Catalog) -> Value {
    json!({
        "services": catalog.names(),
        "freshness": freshness_json(catalog.freshness()),
    })
}

fn freshness_json(freshness: &Freshness) -> Value {
    json!({
        "provider": freshness.provider(),
        "generation": freshness.generation(),
        "stale": freshness.is_stale(),
        "age_ms": freshness.age().map(|age| age.as_millis() as u64),
        "error": freshness.failure().map(|failure| failure.error().to_string()),
    })
}

/// Prints a table of a service's instances, followed by a line if the data is stale.
pub(crate) fn print_instances(snapshot: &Snapshot, address: &ServiceAddress) {
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
    print_table(["ID", "URL", "HEALTH", "VERSION", "WEIGHT", "TAGS"], &rows);
    print_staleness(snapshot.freshness());
}

/// Prints a line if the data is the last known state from a provider that now fails.
pub(crate) fn print_staleness(freshness: &Freshness) {
    if let (Some(age), Some(failure)) = (freshness.age(), freshness.failure()) {
        let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
        println!("stale: last confirmed {age} ago; {}", failure.error());
    }
}

/// Prints rows below a header, with aligned columns.
pub(crate) fn print_table<const N: usize>(header: [&str; N], rows: &[[String; N]]) {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    });
    let print_row = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    print_row(header);
    for row in rows {
        print_row(row.each_ref().map(String::as_str));
    }
}
