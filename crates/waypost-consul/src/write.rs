use serde_json::{Value, json};
use waypost_core::provider::{HeartbeatResponse, InstanceReport};
use waypost_core::{InstanceId, ProviderError, ProviderErrorKind, Registration};

use super::definition::{definition, status, ttl_checks};
use super::http::Http;
use super::permission::Need;

/// Registers with the agent, checks included, and drops checks that an earlier registration had.
pub(super) async fn register(
    http: &Http,
    registration: &Registration,
    report: &InstanceReport,
) -> Result<(), ProviderError> {
    let body = definition(registration, report);
    let path = "/v1/agent/service/register?replace-existing-checks=true";
    http.write(path, &body, Some(&need(registration))).await
}

pub(super) async fn deregister(http: &Http, id: &InstanceId) -> Result<(), ProviderError> {
    let path = format!("/v1/agent/service/deregister/{}", escape(id.as_str()));
    let need = Need::write_service(None);
    match http.write(&path, &Value::Null, Some(&need)).await {
        // Newer agents answer 404 for what isn't there.
        Err(error) if is_unknown(&error) => Ok(()),
        other => other,
    }
}

/// Reports to each TTL check; without one, asks whether the agent still has the service.
pub(super) async fn heartbeat(
    http: &Http,
    registration: &Registration,
    report: InstanceReport,
) -> Result<HeartbeatResponse, ProviderError> {
    let ttl_checks = ttl_checks(registration);
    let told = if ttl_checks.is_empty() {
        let instance = registration.instance();
        let path = format!("/v1/agent/service/{}", escape(instance.id().as_str()));
        let need = Need::read_service(instance.service().as_str());
        http.read(&path, &[], None, Some(&need)).await.map(drop)
    } else {
        let body = json!({"Status": status(report.health), "Output": report.output});
        let mut told = Ok(());
        for check in ttl_checks {
            let path = format!("/v1/agent/check/update/{}", escape(&check));
            told = told.and(http.write(&path, &body, Some(&need(registration))).await);
        }
        told
    };
    match told {
        Ok(()) => Ok(HeartbeatResponse::Known),
        Err(error) if is_unknown(&error) => Ok(HeartbeatResponse::Forgotten),
        Err(error) => Err(error),
    }
}

/// Takes the instance out of service, with a reason, or puts it back.
pub(super) async fn set_maintenance(
    http: &Http,
    registration: &Registration,
    reason: Option<&str>,
) -> Result<(), ProviderError> {
    let id = escape(registration.instance().id().as_str());
    let path = match reason {
        Some(reason) => {
            let reason = escape(reason);
            format!("/v1/agent/service/maintenance/{id}?enable=true&reason={reason}")
        }
        None => format!("/v1/agent/service/maintenance/{id}?enable=false"),
    };
    http.write(&path, &Value::Null, Some(&need(registration)))
        .await
}

fn need(registration: &Registration) -> Need {
    Need::write_service(Some(registration.instance().service().as_str()))
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
