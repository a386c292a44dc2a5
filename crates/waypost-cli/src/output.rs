//! Output of the query commands: tables for people, JSON for programs.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use waypost::provider::CheckResult;
use waypost::snapshot::{Freshness, Snapshot};
use waypost::{Health, Instance, InstanceId, ServiceAddress};

use crate::error::CommandError;
use crate::style::{Column, Table, Text, Tone, print_texts};
use crate::terminal::print_line;

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
    let provider = snapshot.freshness().provider();
    let instances = matching(snapshot, address).map(|(instance, url)| {
        let mut value = json!(instance);
        value["url"] = url.into();
        value["checks"] = checks_json(checks, instance.id());
        value["why"] = why_json(instance, checks, provider);
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

/// The checks of one instance.
pub(crate) fn checks_json(checks: &[CheckResult], id: &InstanceId) -> Value {
    let checks = checks.iter().filter(|check| check.instance == *id);
    let values = checks.map(|check| {
        json!({
            "name": check.name,
            "health": check.health,
            "output": check.output,
            "since": check.since.map(|since| humantime::format_rfc3339_seconds(since).to_string()),
        })
    });
    values.collect()
}

/// Why an instance is not healthy, as one text; null if it is.
pub(crate) fn why_json(instance: &Instance, checks: &[CheckResult], provider: &str) -> Value {
    json!(why_text(instance, checks, provider))
}

/// Why an instance is not healthy, as one text; `None` if it is.
pub(crate) fn why_text(
    instance: &Instance,
    checks: &[CheckResult],
    provider: &str,
) -> Option<String> {
    let reasons = reasons(instance, checks, provider);
    let reasons: Vec<_> = reasons.iter().map(|reason| reason.text.as_str()).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
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

/// Prints a table of a service's instances, followed by why some are not healthy, and a line if the
/// data is stale.
pub(crate) fn print_instances(
    snapshot: &Snapshot,
    address: &ServiceAddress,
    checks: &[CheckResult],
    is_wide: bool,
) -> Result<(), CommandError> {
    let mut table = Table::new(
        &[
            Column::new("ID").can_shrink(),
            Column::new("URL"),
            Column::new("HEALTH"),
            Column::new("VERSION").can_shrink(),
            Column::number("WEIGHT"),
            Column::new("ZONE").wide_only(),
            Column::new("TAGS").can_shrink(),
            Column::new("METADATA").wide_only(),
        ],
        is_wide,
    );
    for (instance, url) in matching(snapshot, address) {
        let metadata = instance
            .metadata()
            .map(|(key, value)| format!("{key}={value}"));
        table.row([
            Text::new(instance.id()),
            Text::new(url),
            Text::toned(instance.health().into(), instance.health()),
            Text::or_none(instance.version()),
            Text::new(instance.weight()),
            Text::or_none(instance.zone()),
            Text::or_none(Some(instance.tags().collect::<Vec<_>>().join(","))),
            Text::or_none(Some(metadata.collect::<Vec<_>>().join(","))),
        ]);
    }
    table.print()?;
    let provider = snapshot.freshness().provider();
    for (instance, _) in matching(snapshot, address) {
        print_reasons(instance, checks, provider, is_wide)?;
    }
    print_staleness(snapshot.freshness())
}

/// Why an instance is not healthy: a failing check, or another reason if no check fails.
struct Reason {
    health: Health,
    /// When it became unhealthy, if the registry reports that.
    since: Option<SystemTime>,
    text: String,
}

/// Why an instance is not healthy: at least one reason if it isn't, none if it is.
fn reasons(instance: &Instance, checks: &[CheckResult], provider: &str) -> Vec<Reason> {
    let health = instance.health();
    if !matches!(health, Health::Warning | Health::Critical) {
        return Vec::new();
    }
    let failing: Vec<_> = checks
        .iter()
        .filter(|check| check.instance == *instance.id() && check.health != Health::Passing)
        .map(|check| Reason {
            health: check.health,
            since: check.since,
            text: match check.output.trim() {
                "" => format!("check {:?} has not run yet, or reports nothing", check.name),
                output => format!("check {:?}: {output}", check.name),
            },
        })
        .collect();
    if !failing.is_empty() {
        return failing;
    }
    let text = match (instance.meta("pod"), instance.meta("namespace")) {
        (Some(pod), Some(namespace)) if provider.starts_with("kubernetes") => format!(
            "the endpoint is not ready, for example because a readiness probe of its Pod fails; see \
             `kubectl describe pod {pod} -n {namespace}`"
        ),
        _ if provider.starts_with("kubernetes") => {
            "the conditions of its endpoint say that it is not ready".to_owned()
        }
        _ => format!("{provider} does not say why"),
    };
    vec![Reason {
        health,
        since: None,
        text,
    }]
}

/// The number of lines of a check's output that are printed without `-o wide`.
const MAX_LINES: usize = 5;

/// Prints why an instance is not healthy, if it isn't.
pub(crate) fn print_reasons(
    instance: &Instance,
    checks: &[CheckResult],
    provider: &str,
    is_wide: bool,
) -> Result<(), CommandError> {
    for reason in reasons(instance, checks, provider) {
        let elapsed = reason.since.and_then(|since| since.elapsed().ok());
        let elapsed = elapsed.map(|elapsed| format!(" for {}", rounded(elapsed)));
        let mut lines = reason.text.lines().filter(|line| !line.trim().is_empty());
        print_texts(&[
            Text::new(format_args!("{}: ", instance.id())),
            Text::toned(reason.health.into(), reason.health),
            Text::new(elapsed.unwrap_or_default()),
            Text::new(format_args!(
                ": {}",
                lines.next().unwrap_or_default().trim_end()
            )),
        ])?;
        let limit = if is_wide { usize::MAX } else { MAX_LINES - 1 };
        for line in lines.by_ref().take(limit) {
            print_texts(&[Text::new(format_args!("    {}", line.trim_end()))])?;
        }
        let left_out = lines.count();
        if left_out > 0 {
            let (lines, them) = match left_out {
                1 => ("line", "it"),
                _ => ("lines", "them"),
            };
            let note = format!("    … {left_out} more {lines}; -o wide prints {them}");
            print_texts(&[Text::toned(Tone::Faint, note)])?;
        }
    }
    Ok(())
}

/// A number of items, such as `1 service` or `2 services`.
pub(crate) fn counted(count: usize, item: &str) -> String {
    match count {
        1 => format!("1 {item}"),
        count => format!("{count} {item}s"),
    }
}

/// A duration with its two largest units, such as `4m 12s`.
pub(crate) fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let unit = match seconds {
        0..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    humantime::format_duration(Duration::from_secs(seconds / unit * unit)).to_string()
}

/// Prints a line if the data is the last known state from a provider that now fails.
pub(crate) fn print_staleness(freshness: &Freshness) -> Result<(), CommandError> {
    let (Some(age), Some(failure)) = (freshness.age(), freshness.failure()) else {
        return Ok(());
    };
    let (age, error) = (rounded(age), failure.error());
    print_line(format_args!("stale: last confirmed {age} ago; {error}"))
}
