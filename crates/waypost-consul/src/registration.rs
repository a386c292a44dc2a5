//! Registers instances with an agent, and reports their health.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
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

/// Removes an instance; one that isn't registered is not an error.
pub(super) async fn deregister(agent: &AgentClient, id: &InstanceId) -> Result<(), ProviderError> {
    let path = format!("/v1/agent/service/deregister/{}", escape(id.as_str()));
    let rule = AclRule::write_unknown_service();
    match agent.put(&path, &Value::Null, &rule).await {
        // Newer agents answer 404.
        Err(error) if is_not_found(&error) => Ok(()),
        result => result,
    }
}

/// Reports to each TTL check. Without TTL checks, only asks whether the agent has the service.
pub(super) async fn heartbeat(
    agent: &AgentClient,
    registration: &Registration,
    report: InstanceReport,
) -> Result<HeartbeatResponse, ProviderError> {
    let check_ids = ttl_check_ids(registration);
    let result = if check_ids.is_empty() {
        let instance = registration.instance();
        let path = format!("/v1/agent/service/{}", escape(instance.id().as_str()));
        let rule = AclRule::read_service(instance.service().as_str());
        agent.get(&path, &[], None, Some(&rule)).await.map(drop)
    } else {
        let body = json!({ "Status": check_status(report.health), "Output": report.output });
        let rule = write_rule(registration);
        let mut result = Ok(());
        for id in check_ids {
            let path = format!("/v1/agent/check/update/{}", escape(&id));
            result = result.and(agent.put(&path, &body, &rule).await);
        }
        result
    };
    match result {
        Ok(()) => Ok(HeartbeatResponse::Known),
        Err(error) if is_not_found(&error) => Ok(HeartbeatResponse::Forgotten),
        Err(error) => Err(error),
    }
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
