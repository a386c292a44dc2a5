//! Service and check definitions in the format of Consul's agent.

use std::time::Duration;

use serde_json::{Map, Value, json};
use waypost_core::provider::InstanceReport;
use waypost_core::{Check, CheckKind, Health, Instance, InstanceId, Registration};

/// The body of a request to `/v1/agent/service/register`.
pub(super) fn service_definition(registration: &Registration, report: &InstanceReport) -> Value {
    let instance = registration.instance();
    // A service without an address gets the address of the agent's node.
    let address = if registration.uses_agent_address() {
        String::new()
    } else {
        instance.host().bare()
    };
    // Consul refuses a weight of 0, so that one is sent as metadata.
    let weight = instance.weight().get().max(1);
    let mut body = json!({
        "ID": instance.id().as_str(),
        "Name": instance.service().as_str(),
        "Address": address,
        "Port": instance.port(),
        "Tags": instance.tags().collect::<Vec<_>>(),
        "Meta": metadata(instance),
        "Weights": { "Passing": weight, "Warning": weight },
    });
    let tagged: Map<String, Value> = registration
        .tagged_addresses()
        .map(|(tag, host, port)| {
            let address = json!({ "Address": host.bare(), "Port": port });
            (tag.to_owned(), address)
        })
        .collect();
    if !tagged.is_empty() {
        body["TaggedAddresses"] = tagged.into();
    }
    if registration.allows_tag_override() {
        body["EnableTagOverride"] = true.into();
    }
    let checks = registration.checks().iter().enumerate();
    body["Checks"] = checks
        .map(|(position, check)| check_definition(registration, report, position, check))
        .collect();
    body
}

/// The ids of the TTL checks.
pub(super) fn ttl_check_ids(registration: &Registration) -> Vec<String> {
    let id = registration.instance().id();
    let checks = registration.checks().iter().enumerate();
    checks
        .filter(|(_, check)| matches!(check.kind(), CheckKind::Ttl(_)))
        .map(|(position, _)| check_id(id, position))
        .collect()
}

/// Consul's name for a health.
pub(super) fn check_status(health: Health) -> &'static str {
    match health {
        Health::Passing | Health::Unchecked => "passing",
        Health::Warning => "warning",
        Health::Draining | Health::Critical => "critical",
    }
}

/// Whether a check of this kind can be defined.
pub(super) fn supports(kind: &CheckKind) -> bool {
    matches!(
        kind,
        CheckKind::Http(_)
            | CheckKind::Tcp
            | CheckKind::Grpc { .. }
            | CheckKind::Script(_)
            | CheckKind::Ttl(_)
    )
}

/// The instance's metadata, and the properties that Consul has no field for; see
/// [`ConsulProvider`](crate::ConsulProvider).
pub(super) fn metadata(instance: &Instance) -> Map<String, Value> {
    let mut all: Map<String, Value> = instance
        .metadata()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let mut add = |key: &str, value: String| {
        all.insert(key.to_owned(), value.into());
    };
    if let Some(version) = instance.version() {
        add("version", version.into());
    }
    if let Some(zone) = instance.zone() {
        add("zone", zone.into());
    }
    if instance.scheme() != "http" {
        add("scheme", instance.scheme().into());
    }
    if !instance.path_prefix().is_empty() {
        add("path", instance.path_prefix().into());
    }
    if instance.weight().is_drained() {
        add("weight", "0".into());
    }
    for (name, port) in instance.ports() {
        add(&format!("port_{name}"), port.to_string());
    }
    all
}

/// The id of a check. It is set explicitly, because heartbeats need it.
fn check_id(id: &InstanceId, position: usize) -> String {
    format!("service:{id}:{}", position + 1)
}

/// The definition of one check. Fields that aren't set are left out, because agents refuse fields that
/// they don't know, and older agents know fewer.
fn check_definition(
    registration: &Registration,
    report: &InstanceReport,
    position: usize,
    check: &Check,
) -> Value {
    let instance = registration.instance();
    let mut body = Map::new();
    let mut set = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    set("CheckID", check_id(instance.id(), position).into());
    // Consul considers a check critical until its first run or report, up to an interval later. An
    // instance that has just run its own checks needn't wait for that. Nor does a TTL check, since this
    // process sends its first report right after the registration.
    let is_ttl = matches!(check.kind(), CheckKind::Ttl(_));
    if is_ttl || report.health != Health::Unchecked {
        set("Status", check_status(report.health).into());
    }
    match check.kind() {
        CheckKind::Http(http) => {
            set("HTTP", http.url(instance).into());
            if http.method() != "GET" {
                set("Method", http.method().into());
            }
            let headers: Map<String, Value> = http
                .headers()
                .map(|(name, values)| (name.to_owned(), values.into()))
                .collect();
            if !headers.is_empty() {
                set("Header", headers.into());
            }
            if let Some(content) = http.body() {
                set("Body", content.into());
            }
        }
        CheckKind::Tcp => set("TCP", instance.authority().into()),
        CheckKind::Grpc { service } => {
            let target = if service.is_empty() {
                instance.authority()
            } else {
                format!("{}/{service}", instance.authority())
            };
            set("GRPC", target.into());
            set("GRPCUseTLS", check.uses_tls().into());
        }
        CheckKind::Script(arguments) => set("Args", arguments.as_slice().into()),
        CheckKind::Ttl(ttl) => set("TTL", go_duration(*ttl)),
        // Refused by `supports` before the first attempt.
        _ => {}
    }
    if let Some((interval, timeout)) = check.timing() {
        set("Interval", go_duration(interval));
        set("Timeout", go_duration(timeout));
    }
    if let Some(name) = check.tls_server_name() {
        set("TLSServerName", name.into());
    }
    if check.skips_tls_verify() {
        set("TLSSkipVerify", true.into());
    }
    if let Some(name) = check.name() {
        set("Name", name.into());
    }
    if let Some(notes) = check.notes() {
        set("Notes", notes.into());
    }
    if let Some(health) = check.initial_health() {
        set("Status", check_status(health).into());
    }
    if let Some(successes) = check.rise() {
        set("SuccessBeforePassing", successes.into());
    }
    if let Some(failures) = check.fall() {
        set("FailuresBeforeCritical", failures.into());
    }
    if let Some(after) = registration.deregister_critical_after() {
        set("DeregisterCriticalServiceAfter", go_duration(after));
    }
    body.into()
}

/// A duration in Go's format, which needs a unit.
fn go_duration(duration: Duration) -> Value {
    format!("{}ms", duration.as_millis()).into()
}

#[cfg(test)]
mod tests {
    use waypost_core::ServiceRegistration;

    use super::*;

    /// Consul doesn't show these options of a registered check.
    #[test]
    fn every_option_of_a_check_is_in_its_definition() {
        let check = Check::http("/health")
            .method("POST")
            .header("x-probe", "one")
            .body("{}")
            .with_tls_skip_verify()
            .every(Duration::from_secs(60))
            .timeout(Duration::from_secs(3))
            .with_rise(2)
            .with_fall(3);
        let registration = ServiceRegistration::new("web", 80)
            .unwrap()
            .deregister_critical_after(Some(Duration::from_secs(120)))
            .check(check)
            .check(Check::ttl(Duration::from_secs(1)).every(Duration::from_secs(9)));
        let registration = registration.resolve(None).unwrap();
        let definition = service_definition(&registration, &InstanceReport::alive());
        for (check, option, value) in [
            (0, "Method", json!("POST")),
            (0, "Header", json!({ "x-probe": ["one"] })),
            (0, "Body", json!("{}")),
            (0, "TLSSkipVerify", json!(true)),
            (0, "Interval", json!("60000ms")),
            (0, "Timeout", json!("3000ms")),
            (0, "SuccessBeforePassing", json!(2)),
            (0, "FailuresBeforeCritical", json!(3)),
            (0, "DeregisterCriticalServiceAfter", json!("120000ms")),
            (1, "TTL", json!("9000ms")),
        ] {
            assert_eq!(definition["Checks"][check][option], value, "{option}");
        }
    }
}
