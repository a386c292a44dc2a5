//! Registers instances with an agent, and reports their health.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use waypost_core::provider::{HeartbeatResponse, InstanceReport};
use waypost_core::{InstanceId, ProviderError, ProviderErrorKind, Registration};

use crate::acl::AclRule;
use crate::agent_client::AgentClient;
use crate::definition::{check_status, service_definition, ttl_check_ids};

/// Registers an instance with its checks. Checks that only an earlier registration had are removed.
pub(super) async fn register(
    agent: &AgentClient,
    registration: &Registration,
    report: &InstanceReport,
) -> Result<(), ProviderError> {
    let body = service_definition(registration, report);
    let path = "/v1/agent/service/register?replace-existing-checks=true";
    let result = agent.put(path, &body, &write_rule(registration)).await;
    result.map_err(|error| agent.error_of_known_path(error))
}

/// Removes an instance. It is not an error if the instance isn't registered.
pub(super) async fn deregister(agent: &AgentClient, id: &InstanceId) -> Result<(), ProviderError> {
    let path = format!("/v1/agent/service/deregister/{}", escape(id.as_str()));
    let rule = AclRule::write_unknown_service();
    match agent.put(&path, &Value::Null, &rule).await {
        // Newer agents answer 404.
        Err(error) if is_not_found(&error) => Ok(()),
        result => result,
    }
}

/// Compares what the agent has with the registration, and reports to each TTL check.
pub(super) async fn heartbeat(
    agent: &AgentClient,
    registration: &Registration,
    report: InstanceReport,
) -> Result<HeartbeatResponse, ProviderError> {
    let result = async {
        if let Some(difference) = difference(agent, registration, &report).await? {
            return Ok(HeartbeatResponse::Changed(difference.into()));
        }
        let body = json!({ "Status": check_status(report.health), "Output": report.output });
        let rule = write_rule(registration);
        for id in ttl_check_ids(registration) {
            let path = format!("/v1/agent/check/update/{}", escape(&id));
            agent.put(&path, &body, &rule).await?;
        }
        Ok(HeartbeatResponse::Known)
    };
    match result.await {
        Err(error) if is_not_found(&error) => Ok(HeartbeatResponse::Forgotten),
        result => result,
    }
}

/// How the service and its checks differ from the registration, if they do.
async fn difference(
    agent: &AgentClient,
    registration: &Registration,
    report: &InstanceReport,
) -> Result<Option<String>, ProviderError> {
    let instance = registration.instance();
    let id = instance.id().as_str();
    let rule = AclRule::read_service(instance.service().as_str());
    let path = format!("/v1/agent/service/{}", escape(id));
    let stored = agent.get(&path, &[], None, Some(&rule)).await?;
    let wanted = service_definition(registration, report);
    let Ok(stored) = serde_json::from_slice::<Value>(&stored.body) else {
        return Ok(None);
    };
    if let Some(difference) = service_difference(&wanted, &stored) {
        return Ok(Some(difference));
    }
    let wanted: Vec<_> = definition_check_ids(&wanted).collect();
    if wanted.is_empty() {
        return Ok(None);
    }
    // Agents that don't know the filter return the checks of all services.
    let filter = format!("ServiceID == {}", Value::from(id));
    let params = [("filter".to_owned(), filter)];
    let stored = agent.get("/v1/agent/checks", &params, None, Some(&rule));
    let stored = stored.await?;
    let Ok(stored) = serde_json::from_slice::<Map<String, Value>>(&stored.body) else {
        return Ok(None);
    };
    let missing = wanted.into_iter().find(|id| !stored.contains_key(*id));
    Ok(missing.map(|id| format!("the check {id} is missing")))
}

/// The first field of a stored service that differs from its definition. Fields that only newer agents
/// have, or that agents fill in, are not compared.
fn service_difference(wanted: &Value, stored: &Value) -> Option<String> {
    // Go writes an empty list or map as `null`.
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    let differs = |wanted: &Value, stored: &Value| {
        wanted != stored && !(is_empty(wanted) && is_empty(stored))
    };
    let difference = |name: &str, wanted: &Value, stored: &Value| {
        let found = differs(wanted, stored);
        found.then(|| format!("{name} is {stored} instead of {wanted}"))
    };
    for (name, stored_name) in [
        ("Name", "Service"),
        ("Address", "Address"),
        ("Port", "Port"),
        ("Meta", "Meta"),
        ("Weights", "Weights"),
    ] {
        let found = difference(stored_name, &wanted[name], &stored[stored_name]);
        if found.is_some() {
            return found;
        }
    }
    // Other programs may change the tags if the registration allows it.
    if wanted["EnableTagOverride"] != true {
        let found = difference("Tags", &wanted["Tags"], &stored["Tags"]);
        if found.is_some() {
            return found;
        }
    }
    // Agents add addresses of their own.
    let addresses = wanted["TaggedAddresses"].as_object();
    addresses.into_iter().flatten().find_map(|(tag, wanted)| {
        let stored = &stored["TaggedAddresses"][tag];
        difference(&format!("TaggedAddresses.{tag}"), wanted, stored)
    })
}

/// The ids of the checks in a service definition.
fn definition_check_ids(definition: &Value) -> impl Iterator<Item = &str> {
    let checks = definition["Checks"].as_array();
    let checks = checks.into_iter().flatten();
    checks.filter_map(|check| check["CheckID"].as_str())
}

/// Starts maintenance mode with a reason, or ends it if there is none.
pub(super) async fn set_maintenance(
    agent: &AgentClient,
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
    agent
        .put(&path, &Value::Null, &write_rule(registration))
        .await
}

fn write_rule(registration: &Registration) -> AclRule {
    AclRule::write_service(registration.instance().service().as_str())
}

/// Whether the agent doesn't know the service or check: status 404, or, from agents before 1.11,
/// status 500 with one of these texts.
pub(super) fn is_not_found(error: &ProviderError) -> bool {
    let text = error.message();
    let is_404 = error.kind() == ProviderErrorKind::Rejected && text.starts_with("404");
    is_404
        || [
            "does not have associated TTL",
            "Unknown check",
            "unknown service ID",
        ]
        .iter()
        .any(|phrase| text.contains(phrase))
}

/// Percent-encodes a path segment or a query value (RFC 3986, section 2).
pub(super) fn escape(text: &str) -> String {
    const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b':');
    utf8_percent_encode(text, ESCAPED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_of_a_service_is_compared() {
        let wanted = json!({
            "ID": "web-1", "Name": "web", "Address": "10.0.0.1", "Port": 80, "Tags": ["a", "b"],
            "Meta": {"team": "x"}, "Weights": {"Passing": 1, "Warning": 1},
            "TaggedAddresses": {"wan": {"Address": "203.0.113.1", "Port": 80}},
        });
        let stored = json!({
            "ID": "web-1", "Service": "web", "Address": "10.0.0.1", "Port": 80, "Tags": ["a", "b"],
            "Meta": {"team": "x"}, "Weights": {"Passing": 1, "Warning": 1}, "ContentHash": "abc",
            "TaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.1", "Port": 80},
                                "wan": {"Address": "203.0.113.1", "Port": 80}},
        });
        assert_eq!(service_difference(&wanted, &stored), None);
        for (field, value) in [
            ("Service", json!("api")),
            ("Address", json!("10.0.0.2")),
            ("Port", json!(81)),
            ("Tags", json!(["a"])),
            ("Meta", json!({})),
            ("Weights", json!({"Passing": 2, "Warning": 1})),
            ("TaggedAddresses", Value::Null),
        ] {
            let mut changed = stored.clone();
            changed[field] = value;
            let difference = service_difference(&wanted, &changed).unwrap();
            assert!(difference.starts_with(field), "{difference}");
        }

        let mut override_allowed = wanted.clone();
        override_allowed["EnableTagOverride"] = true.into();
        let mut retagged = stored.clone();
        retagged["Tags"] = json!(["other"]);
        assert_eq!(service_difference(&override_allowed, &retagged), None);

        let bare = json!({"Name": "web", "Tags": [], "Meta": {}, "Address": "", "Port": 80,
                          "Weights": {"Passing": 1, "Warning": 1}});
        let null = json!({"Service": "web", "Tags": null, "Meta": null, "Address": "", "Port": 80,
                          "Weights": {"Passing": 1, "Warning": 1}});
        assert_eq!(service_difference(&bare, &null), None);
    }
}
