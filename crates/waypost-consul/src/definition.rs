//! A registration as Consul's agent wants it.

use std::time::Duration;

use serde_json::{Map, Value, json};
use waypost_core::provider::InstanceReport;
use waypost_core::{Check, CheckKind, Health, Instance, InstanceId, Registration};

/// The body of `/v1/agent/service/register`.
pub(super) fn definition(registration: &Registration, report: &InstanceReport) -> Value {
    let instance = registration.instance();
    let mut body = json!({
        "ID": instance.id().as_str(),
        "Name": instance.service().as_str(),
        // Without an address of its own, others use the one of the agent's node. That is right
        // for a service beside its agent, where all we know of ourselves is a loopback address.
        "Address": match registration.uses_agent_address() {
            true => String::new(),
            false => instance.host().bare(),
        },
        "Port": instance.port(),
        "Tags": instance.tags().collect::<Vec<_>>(),
        "Meta": metadata(instance),
        // Consul refuses a weight of 0; the metadata says it instead.
        "Weights": {
            "Passing": instance.weight().get().max(1),
            "Warning": instance.weight().get().max(1),
        },
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

/// The ids of the checks that we report to.
pub(super) fn ttl_checks(registration: &Registration) -> Vec<String> {
    let id = registration.instance().id();
    let checks = registration.checks().iter().enumerate();
    checks
        .filter(|(_, check)| matches!(check.kind(), CheckKind::Ttl(_)))
        .map(|(position, _)| check_id(id, position))
        .collect()
}

/// The status of a health in Consul's words.
pub(super) fn status(health: Health) -> &'static str {
    match health {
        Health::Passing | Health::Unchecked => "passing",
        Health::Warning => "warning",
        Health::Draining | Health::Critical => "critical",
    }
}

/// What Consul has no field for travels as metadata; see `ConsulProvider`.
fn metadata(instance: &Instance) -> Map<String, Value> {
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

/// A check's id is made by us, so that heartbeats need not guess it.
fn check_id(id: &InstanceId, position: usize) -> String {
    format!("service:{id}:{}", position + 1)
}

/// Only what is set is said: agents refuse fields that they don't know, and older ones know fewer.
fn check_definition(
    registration: &Registration,
    report: &InstanceReport,
    position: usize,
    check: &Check,
) -> Value {
    let instance = registration.instance();
    let mut body = Map::new();
    let mut say = |key: &str, value: Value| {
        body.insert(key.to_owned(), value);
    };
    say("CheckID", check_id(instance.id(), position).into());
    // Consul calls a new instance critical until its first check, up to an interval later. One
    // that has just checked itself need not wait for that.
    if report.health != Health::Unchecked {
        say("Status", status(report.health).into());
    }
    match check.kind() {
        CheckKind::Http(http) => {
            say("HTTP", instance.url_for(http.path()).into());
            if http.method() != "GET" {
                say("Method", http.method().into());
            }
            let headers: Map<String, Value> = http
                .headers()
                .map(|(name, values)| (name.to_owned(), values.into()))
                .collect();
            if !headers.is_empty() {
                say("Header", headers.into());
            }
            if let Some(content) = http.body() {
                say("Body", content.into());
            }
        }
        CheckKind::Tcp => say("TCP", instance.authority().into()),
        CheckKind::Grpc { service } => {
            let target = match service.is_empty() {
                true => instance.authority(),
                false => format!("{}/{service}", instance.authority()),
            };
            say("GRPC", target.into());
            say("GRPCUseTLS", check.uses_tls().into());
        }
        CheckKind::Script(arguments) => say("Args", arguments.as_slice().into()),
        CheckKind::Ttl(ttl) => say("TTL", go_duration(*ttl)),
        _ => {}
    }
    if let Some((interval, timeout)) = check.timing() {
        say("Interval", go_duration(interval));
        say("Timeout", go_duration(timeout));
    }
    if let Some(name) = check.tls_server_name() {
        say("TLSServerName", name.into());
    }
    if check.skips_tls_verify() {
        say("TLSSkipVerify", true.into());
    }
    if let Some(name) = check.name() {
        say("Name", name.into());
    }
    if let Some(notes) = check.notes() {
        say("Notes", notes.into());
    }
    if let Some(health) = check.initial_health() {
        say("Status", status(health).into());
    }
    if let Some(times) = check.rise() {
        say("SuccessBeforePassing", times.into());
    }
    if let Some(times) = check.fall() {
        say("FailuresBeforeCritical", times.into());
    }
    if let Some(after) = registration.deregister_critical_after() {
        say("DeregisterCriticalServiceAfter", go_duration(after));
    }
    body.into()
}

/// Go's form of a duration, which needs a unit.
fn go_duration(duration: Duration) -> Value {
    format!("{}ms", duration.as_millis()).into()
}
