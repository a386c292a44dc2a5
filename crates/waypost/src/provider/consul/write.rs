use std::time::Duration;

use serde_json::{Map, Value, json};

use super::http::Http;
use crate::{
    error::{ProviderError, ProviderErrorKind},
    model::{Health, Instance, InstanceId},
    provider::{Heartbeat, Report},
    registrar::{Check, Registration},
};

/// Registers with the agent, checks included, and drops checks that an earlier registration had.
pub(super) async fn register(
    http: &Http,
    registration: &Registration,
) -> Result<(), ProviderError> {
    let body = definition(registration);
    let path = "/v1/agent/service/register?replace-existing-checks=true";
    http.write(path, &body).await
}

pub(super) async fn deregister(http: &Http, id: &InstanceId) -> Result<(), ProviderError> {
    let path = format!("/v1/agent/service/deregister/{}", escape(id.as_str()));
    match http.write(&path, &Value::Null).await {
        // Newer agents answer 404 for what isn't there.
        Err(error) if is_unknown(&error) => Ok(()),
        other => other,
    }
}

/// Reports to each TTL check; without one, asks whether the agent still has the service.
pub(super) async fn heartbeat(
    http: &Http,
    registration: &Registration,
    report: Report,
) -> Result<Heartbeat, ProviderError> {
    let id = registration.instance().id();
    let ttl_checks: Vec<_> = (registration.checks().iter().enumerate())
        .filter(|(_, check)| matches!(check, Check::Ttl(_)))
        .map(|(position, _)| check_id(id, position))
        .collect();
    let told = if ttl_checks.is_empty() {
        let path = format!("/v1/agent/service/{}", escape(id.as_str()));
        http.read(&path, None).await.map(drop)
    } else {
        let status = match report.health {
            Health::Passing | Health::Unchecked => "passing",
            Health::Warning => "warning",
            Health::Draining | Health::Critical => "critical",
        };
        let body = json!({"Status": status, "Output": report.output});
        let mut told = Ok(());
        for check in ttl_checks {
            let path = format!("/v1/agent/check/update/{}", escape(&check));
            told = told.and(http.write(&path, &body).await);
        }
        told
    };
    match told {
        Ok(()) => Ok(Heartbeat::Known),
        Err(error) if is_unknown(&error) => Ok(Heartbeat::Forgotten),
        Err(error) => Err(error),
    }
}

/// Whether the agent says that it doesn't know what was asked for: 404, and from agents before
/// 1.11 a 500 with one of these texts.
fn is_unknown(error: &ProviderError) -> bool {
    let text = error.message();
    let says_404 = error.kind() == ProviderErrorKind::Rejected && text.starts_with("404");
    says_404
        || [
            "does not have associated TTL",
            "Unknown check",
            "unknown service ID",
        ]
        .iter()
        .any(|phrase| text.contains(phrase))
}

/// The body of a registration.
fn definition(registration: &Registration) -> Value {
    let instance = registration.instance();
    let mut body = json!({
        "ID": instance.id().as_str(),
        "Name": instance.service().as_str(),
        "Address": instance.host().bare(),
        "Port": instance.port(),
        "Tags": instance.tags().collect::<Vec<_>>(),
        "Meta": metadata(instance),
        // Consul refuses a weight of 0; the metadata says it instead.
        "Weights": {
            "Passing": instance.weight().get().max(1),
            "Warning": instance.weight().get().max(1),
        },
    });
    let checks = registration.checks().iter().enumerate();
    body["Checks"] = checks
        .map(|(position, check)| check_definition(registration, position, check))
        .collect();
    body
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

fn check_definition(registration: &Registration, position: usize, check: &Check) -> Value {
    let instance = registration.instance();
    let mut body = json!({ "CheckID": check_id(instance.id(), position) });
    match check {
        Check::Http {
            path,
            interval,
            timeout,
        } => {
            body["HTTP"] = instance.url_for(path).into();
            body["Interval"] = go_duration(*interval);
            body["Timeout"] = go_duration(*timeout);
        }
        Check::Tcp { interval, timeout } => {
            body["TCP"] = instance.authority().into();
            body["Interval"] = go_duration(*interval);
            body["Timeout"] = go_duration(*timeout);
        }
        Check::Ttl(ttl) => body["TTL"] = go_duration(*ttl),
    }
    if let Some(after) = registration.deregister_critical_after() {
        body["DeregisterCriticalServiceAfter"] = go_duration(after);
    }
    body
}

/// Go's form of a duration, which needs a unit.
fn go_duration(duration: Duration) -> Value {
    format!("{}ms", duration.as_millis()).into()
}

/// Percent-encodes a path segment (RFC 3986, section 2).
fn escape(segment: &str) -> String {
    let mut escaped = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
