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
        for line in reason_lines(instance, &reason, is_wide, SystemTime::now()) {
            print_texts(&line)?;
        }
    }
    Ok(())
}

/// A reason as it is printed: the first line names the instance, and the others are indented.
fn reason_lines(
    instance: &Instance,
    reason: &Reason,
    is_wide: bool,
    now: SystemTime,
) -> Vec<Vec<Text>> {
    let elapsed = reason
        .since
        .and_then(|since| now.duration_since(since).ok());
    let elapsed = elapsed.map(|elapsed| format!(" for {}", rounded(elapsed)));
    let mut lines = reason.text.lines().filter(|line| !line.trim().is_empty());
    let mut printed = vec![vec![
        Text::new(format_args!("{}: ", instance.id())),
        Text::toned(reason.health.into(), reason.health),
        Text::new(elapsed.unwrap_or_default()),
        Text::new(format_args!(
            ": {}",
            lines.next().unwrap_or_default().trim_end()
        )),
    ]];
    let limit = if is_wide { usize::MAX } else { MAX_LINES - 1 };
    let further = lines.by_ref().take(limit);
    printed.extend(further.map(|line| vec![Text::new(format_args!("    {}", line.trim_end()))]));
    let left_out = lines.count();
    if left_out > 0 {
        let (lines, them) = match left_out {
            1 => ("line", "it"),
            _ => ("lines", "them"),
        };
        let note = format!("    … {left_out} more {lines}; -o wide prints {them}");
        printed.push(vec![Text::toned(Tone::Faint, note)]);
    }
    printed
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

#[cfg(test)]
mod tests {
    use waypost::ServiceName;

    use super::*;

    const CONSUL: &str = "consul at http://c";

    fn instance(health: Health, metadata: &[(&str, &str)]) -> Instance {
        let service = ServiceName::new("web").unwrap();
        let builder = Instance::builder(service, "10.0.0.1".parse().unwrap(), 80);
        let builder = builder.id("web-1").health(health);
        builder.metadata(metadata.iter().copied()).build().unwrap()
    }

    fn check(instance: &str, name: &str, health: Health, output: &str) -> CheckResult {
        CheckResult::new(instance.into(), name, health, output)
    }

    #[test]
    fn an_unhealthy_instance_has_the_reasons_of_its_failing_checks() {
        let checks = [
            check("web-1", "ping", Health::Critical, " no pong \n"),
            check("web-1", "fine", Health::Passing, "ok"),
            check("web-1", "new", Health::Critical, " "),
            check("web-2", "other", Health::Critical, "other"),
        ];
        let why = |health, checks: &[CheckResult]| why_text(&instance(health, &[]), checks, CONSUL);
        let expected = "check \"ping\": no pong; check \"new\" has not run yet, or reports nothing";
        assert_eq!(why(Health::Critical, &checks).as_deref(), Some(expected));
        assert_eq!(why(Health::Warning, &checks).as_deref(), Some(expected));
        for healthy in [Health::Passing, Health::Unchecked, Health::Draining] {
            assert_eq!(why(healthy, &checks), None, "{healthy}");
        }
        let unknown = why(Health::Critical, &checks[1..2]);
        assert_eq!(
            unknown.as_deref(),
            Some("consul at http://c does not say why")
        );
        assert_eq!(
            why_json(&instance(Health::Passing, &[]), &checks, CONSUL),
            Value::Null
        );
    }

    #[test]
    fn the_reason_of_a_pod_names_the_command_that_shows_more() {
        let pod = [("pod", "web-1"), ("namespace", "demo")];
        for (provider, metadata, expected) in [
            (
                "kubernetes at https://k",
                &pod[..],
                "`kubectl describe pod web-1 -n demo`",
            ),
            (
                "kubernetes at https://k",
                &pod[..1],
                "the conditions of its endpoint say",
            ),
            (
                "kubernetes at https://k",
                &[],
                "the conditions of its endpoint say",
            ),
            (CONSUL, &pod, "consul at http://c does not say why"),
        ] {
            let why = why_text(&instance(Health::Critical, metadata), &[], provider);
            let why = why.unwrap();
            assert!(why.contains(expected), "{why}");
        }
    }

    #[test]
    fn the_checks_of_an_instance_are_listed_with_the_time_of_their_last_change() {
        let mut first = check("web-1", "ping", Health::Passing, "pong");
        first.since = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800));
        let checks = [first, check("web-2", "other", Health::Passing, "")];
        let expected = json!([{
            "name": "ping", "health": "passing", "output": "pong", "since": "2026-01-31T12:00:00Z",
        }]);
        assert_eq!(checks_json(&checks, &"web-1".into()), expected);
        assert_eq!(
            checks_json(&checks, &"web-2".into())[0]["since"],
            Value::Null
        );
        assert_eq!(checks_json(&checks, &"web-3".into()), json!([]));
    }

    #[test]
    fn a_long_reason_is_shortened_unless_all_is_wanted() {
        let instance = instance(Health::Critical, &[]);
        let begin = SystemTime::UNIX_EPOCH;
        let lines = |count: usize, is_wide: bool| {
            let text: Vec<_> = (1..=count).map(|line| format!("{line} \n\n")).collect();
            let reason = Reason {
                health: Health::Critical,
                since: Some(begin),
                text: text.concat(),
            };
            reason_lines(
                &instance,
                &reason,
                is_wide,
                begin + Duration::from_secs(252),
            )
        };
        let first = [
            Text::new("web-1: "),
            Text::toned(Tone::Bad, "critical"),
            Text::new(" for 4m 12s"),
            Text::new(": 1"),
        ];
        let further = |line: usize| vec![Text::new(format_args!("    {line}"))];
        let note = |text: &str| vec![Text::toned(Tone::Faint, format_args!("    … {text}"))];
        assert_eq!(lines(1, false), [first.to_vec()]);
        let five = [
            first.to_vec(),
            further(2),
            further(3),
            further(4),
            further(5),
        ];
        assert_eq!(lines(5, false), five);
        assert_eq!(
            lines(6, false)[5..],
            [note("1 more line; -o wide prints it")]
        );
        assert_eq!(
            lines(7, false)[5..],
            [note("2 more lines; -o wide prints them")]
        );
        assert_eq!(lines(7, true)[5..], [further(6), further(7)]);
    }

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (seconds, expected) in [
            (0, "0s"),
            (59, "59s"),
            (252, "4m 12s"),
            (3_599, "59m 59s"),
            (3_600, "1h"),
            (3_725, "1h 2m"),
            (86_399, "23h 59m"),
            (86_400, "1day"),
            (93_784, "1day 2h"),
        ] {
            assert_eq!(rounded(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_number_of_items_is_in_the_singular_or_the_plural() {
        let texts = [0, 1, 2].map(|count| counted(count, "service"));
        assert_eq!(texts, ["0 services", "1 service", "2 services"]);
    }
}
