//! Queries for diagnosis, not for routing: why an instance is not healthy, and whether an id is
//! registered.

use std::collections::HashMap;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer};
use waypost_core::provider::CheckResult;
use waypost_core::{Health, InstanceId, ProviderError, ProviderErrorKind, ServiceName};

use crate::acl::AclRule;
use crate::agent_client::AgentClient;
use crate::escape::escape;
use crate::registration::is_not_found;

/// One item of `/v1/health/service/:name`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
    #[serde(default, deserialize_with = "null_as_default")]
    checks: Vec<Check>,
}

/// The checks of a service as Waypost's own registry reports them, with when they changed.
pub(super) const WAYPOST_CHECKS: &str = "/v1/waypost/checks";

/// One item of [`WAYPOST_CHECKS`].
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WaypostCheck {
    node: String,
    #[serde(rename = "CheckID")]
    id: String,
    /// A point in time of RFC 3339.
    last_changed: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
}

#[derive(Deserialize)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default, rename = "CheckID")]
    id: String,
    #[serde(default)]
    name: String,
    status: String,
    #[serde(default)]
    output: String,
    /// In maintenance mode, the reason.
    #[serde(default)]
    notes: String,
}

impl Check {
    /// Whether this is the check by which Consul marks maintenance mode.
    fn is_maintenance(&self) -> bool {
        self.id == "_node_maintenance" || self.id.starts_with("_service_maintenance:")
    }
}

fn null_as_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The latest results of the checks of a service's instances and of their nodes.
pub(super) async fn check_results(
    agent: &AgentClient,
    service: &ServiceName,
) -> Result<Vec<CheckResult>, ProviderError> {
    let path = format!("/v1/health/service/{service}");
    let rule = AclRule::read_service(service.as_str());
    let response = agent.get(&path, &[], None, Some(&rule)).await?;
    let mut entries: Vec<Entry> = serde_json::from_slice(&response.body).map_err(|error| {
        let message = format!("{path}: unreadable response: {error}");
        agent.error(ProviderErrorKind::InvalidResponse, message)
    })?;
    add_recent_outputs(agent, &mut entries).await;
    Ok(results(entries, &changes(agent, service).await))
}

/// One item of `/v1/agent/checks`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentCheck {
    #[serde(default)]
    node: String,
    #[serde(default)]
    output: String,
}

/// Replaces the outputs of failing checks by those that the agent itself has. If only the output of a
/// check changes, Consul's catalog learns it up to 5 minutes later (`check_update_interval`), and a
/// check that has failed since it was registered has none there until then.
async fn add_recent_outputs(agent: &AgentClient, entries: &mut [Entry]) {
    let is_failing = |check: &Check| check.status != "passing";
    if !entries
        .iter()
        .any(|entry| entry.checks.iter().any(is_failing))
    {
        return;
    }
    // The instance may belong to another agent, or the token may not read this.
    let Ok(response) = agent.get("/v1/agent/checks", &[], None, None).await else {
        return;
    };
    let recent: HashMap<String, AgentCheck> =
        serde_json::from_slice(&response.body).unwrap_or_default();
    for entry in entries {
        for check in entry.checks.iter_mut().filter(|check| is_failing(check)) {
            let found = recent.get(&check.id);
            let found = found.filter(|recent| recent.node == entry.node.node);
            if let Some(recent) = found.filter(|recent| !recent.output.is_empty()) {
                check.output.clone_from(&recent.output);
            }
        }
    }
}

/// When each check last changed, by node and id. Empty unless the registry is Waypost's own: Consul
/// doesn't record that.
async fn changes(
    agent: &AgentClient,
    service: &ServiceName,
) -> HashMap<(String, String), SystemTime> {
    let query = [("service".to_owned(), service.to_string())];
    let Ok(response) = agent.get(WAYPOST_CHECKS, &query, None, None).await else {
        return HashMap::new();
    };
    let checks: Vec<WaypostCheck> = serde_json::from_slice(&response.body).unwrap_or_default();
    let changes = checks.into_iter().filter_map(|check| {
        let changed = humantime::parse_rfc3339(&check.last_changed).ok()?;
        Some(((check.node, check.id), changed))
    });
    changes.collect()
}

fn results(
    entries: Vec<Entry>,
    changes: &HashMap<(String, String), SystemTime>,
) -> Vec<CheckResult> {
    // These are instance ids, which include the node's name where two nodes have the same id.
    let mut uses: HashMap<String, usize> = HashMap::new();
    for entry in &entries {
        *uses.entry(entry.service.id.clone()).or_default() += 1;
    }
    let mut results = Vec::new();
    for entry in entries {
        let id = if uses.get(&entry.service.id) == Some(&1) {
            InstanceId::new(entry.service.id.as_str())
        } else {
            InstanceId::new(format!("{}@{}", entry.service.id, entry.node.node))
        };
        results.extend(entry.checks.into_iter().map(|check| {
            let health = match check.status.as_str() {
                "passing" => Health::Passing,
                "warning" => Health::Warning,
                _ => Health::Critical,
            };
            let changed = changes.get(&(entry.node.node.clone(), check.id.clone()));
            let output = if check.is_maintenance() && check.output.is_empty() {
                check.notes
            } else {
                check.output
            };
            let name = if check.name.is_empty() {
                check.id
            } else {
                check.name
            };
            let result = CheckResult::new(id.clone(), name, health, output);
            match changed {
                Some(changed) => result.since(*changed),
                None => result,
            }
        }));
    }
    results
}

/// Whether the agent has a service with this id.
pub(super) async fn is_registered(
    agent: &AgentClient,
    id: &InstanceId,
) -> Result<bool, ProviderError> {
    let path = format!("/v1/agent/service/{}", escape(id.as_str()));
    match agent
        .get(&path, &[], None, Some(&AclRule::read_all_services()))
        .await
    {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_ids_of_the_instances_and_say_since_when() {
        let entry = |node: &str, id: &str| {
            format!(
                r#"{{"Node": {{"Node": "{node}"}}, "Service": {{"ID": "{id}"}}, "Checks": [
                {{"CheckID": "c", "Name": "", "Status": "critical", "Output": "HTTP 503"}}]}}"#
            )
        };
        let (a, b, c) = (entry("n1", "web"), entry("n2", "web"), entry("n1", "db"));
        let changed = SystemTime::UNIX_EPOCH;
        let changes = HashMap::from([(("n1".to_owned(), "c".to_owned()), changed)]);
        let found = results(
            serde_json::from_str(&format!("[{a}, {b}, {c}]")).unwrap(),
            &changes,
        );
        let ids: Vec<_> = found.iter().map(|it| it.instance.as_str()).collect();
        assert_eq!(ids, ["web@n1", "web@n2", "db"]);
        let expected = CheckResult::new("db".into(), "c", Health::Critical, "HTTP 503");
        assert_eq!(found[2], expected.since(changed));
        assert_eq!(found[1].since, None);
    }

    #[test]
    fn a_check_has_its_name_its_status_and_in_maintenance_the_reason() {
        let check = |id: &str, name: &str, status: &str, output: &str, notes: &str| {
            format!(
                r#"{{"CheckID": "{id}", "Name": "{name}", "Status": "{status}", "Output": "{output}",
                "Notes": "{notes}"}}"#
            )
        };
        let checks = [
            check("c", "ping", "passing", "ok", "a note"),
            check("c", "ping", "warning", "", "a note"),
            check("c", "", "unknown", "", ""),
            check("_node_maintenance", "", "critical", "", "a new disk"),
            check("_service_maintenance:web", "m", "critical", "", "a release"),
            check(
                "_service_maintenance:web",
                "m",
                "critical",
                "by hand",
                "a release",
            ),
        ];
        let entry = format!(
            r#"[{{"Node": {{"Node": "n"}}, "Service": {{"ID": "web"}}, "Checks": [{}]}}]"#,
            checks.join(",")
        );
        let found = results(serde_json::from_str(&entry).unwrap(), &HashMap::new());
        let found: Vec<_> = found
            .iter()
            .map(|it| (&*it.name, it.health, &*it.output))
            .collect();
        let expected = [
            ("ping", Health::Passing, "ok"),
            ("ping", Health::Warning, ""),
            ("c", Health::Critical, ""),
            ("_node_maintenance", Health::Critical, "a new disk"),
            ("m", Health::Critical, "a release"),
            ("m", Health::Critical, "by hand"),
        ];
        assert_eq!(found, expected);
    }
}
