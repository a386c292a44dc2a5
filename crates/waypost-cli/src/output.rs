//! What the commands print: tables for people, JSON for programs.

use serde_json::{Value, json};
use waypost::{Catalog, Freshness, Instance, ServiceAddress, Snapshot};

/// Prints JSON on one line, so that streams of it can be read line by line.
pub(crate) fn print_json(value: &Value) {
    println!("{value}");
}

/// The instances that an address means, with their URLs there.
pub(crate) fn meant<'a>(
    snapshot: &'a Snapshot,
    address: &'a ServiceAddress,
) -> impl Iterator<Item = (&'a Instance, String)> {
    let fitting = snapshot.instances().filter(|it| address.rank(it).is_some());
    fitting.filter_map(|instance| Some((&**instance, address.url_at(instance)?)))
}

/// A service with all its instances, or those that the address means.
pub(crate) fn snapshot_json(snapshot: &Snapshot, address: &ServiceAddress) -> Value {
    let instances = meant(snapshot, address).map(|(instance, url)| {
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

/// A table of a service's instances, and a last line if the picture is stale.
pub(crate) fn print_instances(snapshot: &Snapshot, address: &ServiceAddress) {
    let rows: Vec<[String; 6]> = meant(snapshot, address)
        .map(|(instance, url)| {
            [
                instance.id().to_string(),
                url,
                instance.health().to_string(),
                instance.version().unwrap_or("-").to_owned(),
                instance.weight().to_string(),
                match instance.tags().collect::<Vec<_>>() {
                    tags if tags.is_empty() => "-".to_owned(),
                    tags => tags.join(","),
                },
            ]
        })
        .collect();
    print_table(["ID", "URL", "HEALTH", "VERSION", "WEIGHT", "TAGS"], &rows);
    print_staleness(snapshot.freshness());
}

/// One line if what was printed is the last known good of a provider that fails.
pub(crate) fn print_staleness(freshness: &Freshness) {
    if let (Some(age), Some(failure)) = (freshness.age(), freshness.failure()) {
        let age = humantime::format_duration(std::time::Duration::from_secs(age.as_secs()));
        println!("stale: confirmed {age} ago; {}", failure.error());
    }
}

/// Prints rows under a header, each column as wide as it needs.
pub(crate) fn print_table<const N: usize>(header: [&str; N], rows: &[[String; N]]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: [&str; N]| {
        let padded = cells
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(header);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
}
