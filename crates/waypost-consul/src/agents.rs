//! The agents of a provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Deserialize;
use waypost_core::{ProviderError, ProviderErrorKind};

use crate::acl::AclRule;
use crate::agent_client::AgentClient;
use crate::connection_limit::ConnectionLimit;

/// One or more agents. Reads go to one that responds. Writes always go to the first: a registration
/// belongs to the agent that it was made with, and registering with two agents would create two
/// instances.
#[derive(Debug)]
pub(super) struct Agents {
    all: Vec<AgentClient>,
    /// The index of the agent to read from.
    current: AtomicUsize,
    pub(super) connection_limit: ConnectionLimit,
    /// Whether the agents are known to have no ACLs, so that permissions needn't be checked.
    acls_disabled: AtomicBool,
}

impl Agents {
    /// There must be at least one agent.
    pub(super) fn new(all: Vec<AgentClient>, connections: usize) -> Self {
        Self {
            all,
            current: AtomicUsize::new(0),
            connection_limit: ConnectionLimit::new(connections),
            acls_disabled: AtomicBool::new(false),
        }
    }

    pub(super) fn describe(&self) -> Arc<str> {
        let all: Vec<_> = self.all.iter().map(|a| a.address().to_string()).collect();
        format!("consul at {}", all.join(" or ")).into()
    }

    /// The agent that registrations are made with.
    pub(super) fn first(&self) -> &AgentClient {
        &self.all[0]
    }

    /// The agent to read from, and its index.
    pub(super) fn current(&self) -> (usize, &AgentClient) {
        let index = self.current.load(Ordering::Relaxed) % self.all.len();
        (index, &self.all[index])
    }

    /// Switches to the next agent, if the failure means that this one doesn't work.
    pub(super) fn report_failure(&self, index: usize, error: &ProviderError) {
        use ProviderErrorKind::{InvalidResponse, TimedOut, Unreachable};
        let is_down = matches!(
            error.kind(),
            Unreachable | TimedOut { .. } | InvalidResponse
        );
        if self.all.len() == 1 || !is_down {
            return;
        }
        let next = (index + 1) % self.all.len();
        // If many watches fail together, only the first one switches.
        let switched =
            (self.current).compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        if switched.is_ok() {
            let next = self.all[next].address();
            tracing::info!(%error, %next, "consul agent unavailable, reading from another one");
        }
    }

    /// Fails unless the token has these rules, so that an empty response can be trusted: Consul leaves
    /// out what a token may not read, without an error.
    pub(super) async fn check_rules(
        &self,
        agent: &AgentClient,
        rules: &[AclRule],
    ) -> Result<(), ProviderError> {
        match self.missing_rules(agent, rules).await?.first() {
            None => Ok(()),
            Some(rule) => Err(agent.error(
                ProviderErrorKind::NotAuthorised,
                format!("the token may not read this; its policy needs the rule: {rule}"),
            )),
        }
    }

    /// The rules that the token lacks, each as in a policy.
    pub(super) async fn missing_rules(
        &self,
        agent: &AgentClient,
        rules: &[AclRule],
    ) -> Result<Vec<String>, ProviderError> {
        if self.acls_disabled.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        let body = rules.iter().map(AclRule::authorization_request).collect();
        let response = match agent.post("/v1/internal/acl/authorize", &body).await {
            Ok(response) => response,
            Err(error) if says_acls_disabled(&error) => {
                self.acls_disabled.store(true, Ordering::Relaxed);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let authorizations: Vec<Authorization> =
            serde_json::from_slice(&response.body).unwrap_or_default();
        let rules = rules.iter().zip(authorizations);
        let missing = rules.filter(|(_, authorization)| !authorization.allow);
        Ok(missing.map(|(rule, _)| rule.to_string()).collect())
    }

    /// All agents, in the order of their addresses.
    pub(super) fn all(&self) -> &[AgentClient] {
        &self.all
    }
}

/// Without ACLs, Consul responds with 401 and this text. Other servers with Consul's API don't have the
/// path at all.
fn says_acls_disabled(error: &ProviderError) -> bool {
    error.message().contains("ACL support disabled") || error.kind() == ProviderErrorKind::Rejected
}

/// An item of the response of `/v1/internal/acl/authorize`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Authorization {
    allow: bool,
}
