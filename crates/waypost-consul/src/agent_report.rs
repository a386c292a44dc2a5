//! An agent's state, for diagnosis.

use std::time::SystemTime;

use serde::Deserialize;
use waypost_core::{ProviderError, ProviderErrorKind};

use crate::acl::AclRule;
use crate::agent_client::AgentClient;
use crate::agents::Agents;
use crate::diagnosis::WAYPOST_CHECKS;

/// The state of one agent, for diagnosis.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentReport {
    /// Its address, such as `http://localhost:8500`.
    pub address: String,
    /// Its node, datacenter and version; an error without the rule `agent:read`.
    pub identity: Result<AgentIdentity, ProviderError>,
    /// Whether it is Waypost's own registry instead of Consul.
    pub is_waypost: bool,
    /// The address of the cluster's leader, if there is one. Without one, nothing can be registered.
    pub leader: Option<String>,
    /// The rules that the token lacks for look-ups, each as in a policy; or why they can't be
    /// determined.
    pub missing_rules: Result<Vec<String>, ProviderError>,
    /// The agent's clock, to the second.
    pub clock: Option<SystemTime>,
}

/// The identity of an agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct AgentIdentity {
    /// The name of its node.
    pub node_name: String,
    /// Its datacenter.
    pub datacenter: String,
    /// The version of Consul. For Waypost's registry, the version whose API it implements.
    pub version: String,
}

/// The part of `/v1/agent/self` that is read.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AgentSelf {
    config: AgentIdentity,
}

impl AgentReport {
    /// Queries one agent.
    pub(super) async fn of(agents: &Agents, agent: &AgentClient) -> Result<Self, ProviderError> {
        const LEADER: &str = "/v1/status/leader";
        let leader = agent.get(LEADER, &[], None, None).await;
        let leader = leader.map_err(|error| agent.error_of_known_path(error))?;
        let date = leader.headers.get("date").and_then(|it| it.to_str().ok());
        let address: String = serde_json::from_slice(&leader.body).map_err(|_| {
            let message = format!("{LEADER}: a program that is not a Consul agent responds");
            agent.error(ProviderErrorKind::InvalidResponse, message)
        })?;
        let rules = [AclRule::read_all_services(), AclRule::read_all_nodes()];
        Ok(Self {
            address: agent.address().to_string(),
            identity: identity(agent).await,
            is_waypost: is_waypost(agent).await,
            leader: Some(address).filter(|address| !address.is_empty()),
            missing_rules: agents.missing_rules(agent, &rules).await,
            clock: date.and_then(|date| httpdate::parse_http_date(date).ok()),
        })
    }
}

async fn identity(agent: &AgentClient) -> Result<AgentIdentity, ProviderError> {
    let path = "/v1/agent/self";
    let response = agent.get(path, &[], None, None).await?;
    let found: AgentSelf = serde_json::from_slice(&response.body).map_err(|error| {
        let message = format!("{path}: unreadable response: {error}");
        agent.error(ProviderErrorKind::InvalidResponse, message)
    })?;
    Ok(found.config)
}

/// Whether the agent has an endpoint that Consul doesn't have.
async fn is_waypost(agent: &AgentClient) -> bool {
    let query = [("service".to_owned(), "consul".to_owned())];
    let response = agent.get(WAYPOST_CHECKS, &query, None, None).await;
    response.is_ok_and(|response| {
        serde_json::from_slice::<Vec<serde_json::Value>>(&response.body).is_ok()
    })
}
