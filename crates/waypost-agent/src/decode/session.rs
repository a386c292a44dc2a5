//! The body of `/v1/session/create`.

use serde::{Deserialize, Deserializer};

use super::json::present;
use crate::go_compat;
use crate::store::{Session, SessionServiceCheck};

const SECOND: i64 = 1_000_000_000;
const DEFAULT_LOCK_DELAY: i64 = 15 * SECOND;
const MIN_TTL: i64 = 10 * SECOND;
const MAX_TTL: i64 = 24 * 60 * 60 * SECOND;

/// Lower lock delays are in seconds, not in nanoseconds.
const MIN_LOCK_DELAY_NANOSECONDS: i64 = 1000;

/// The check that every node has: whether it is reachable.
const NODE_HEALTH: &str = "serfHealth";

/// The body of `/v1/session/create`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SessionDefinition {
    name: String,
    node: Option<String>,
    #[serde(deserialize_with = "lock_delay")]
    lock_delay: Option<i64>,
    behavior: String,
    #[serde(rename = "TTL")]
    ttl: String,
    /// `None` if it is missing, `Some(None)` if it is `null`: Consul distinguishes these.
    #[serde(deserialize_with = "present")]
    checks: Option<Option<Vec<String>>>,
    #[serde(deserialize_with = "present")]
    node_checks: Option<Option<Vec<String>>>,
    service_checks: Option<Vec<SessionServiceCheck>>,
}

impl SessionDefinition {
    /// The session, without an id. The error is Consul's.
    pub(crate) fn into_session(self, default_node: &str) -> Result<Session, String> {
        let behavior = match self.behavior.as_str() {
            "" => Session::RELEASE.to_owned(),
            Session::RELEASE | Session::DELETE => self.behavior,
            other => return Err(format!("Invalid Behavior setting '{other}'")),
        };
        if !self.ttl.is_empty() {
            let ttl = go_compat::parse_duration(&self.ttl)
                .map_err(|error| format!("Session TTL '{}' invalid: {error}", self.ttl))?;
            if ttl != 0 && !(MIN_TTL..=MAX_TTL).contains(&ttl) {
                return Err(format!(
                    "Invalid Session TTL '{ttl}', must be between [10s=24h0m0s]"
                ));
            }
        }
        let node_checks = self
            .node_checks
            .unwrap_or_else(|| Some(vec![NODE_HEALTH.to_owned()]));
        let is_empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        let (checks, node_checks) = match self.checks {
            None => (None, node_checks),
            // An empty list in the deprecated field or in the new one means no checks at all.
            Some(checks) if is_empty(&checks) => (None, Some(Vec::new())),
            Some(_) if is_empty(&node_checks) => (None, node_checks),
            Some(checks) => (checks, node_checks),
        };
        Ok(Session {
            name: self.name,
            node: self.node.unwrap_or_else(|| default_node.to_owned()),
            lock_delay: self.lock_delay.unwrap_or(DEFAULT_LOCK_DELAY),
            behavior,
            ttl: self.ttl,
            node_checks,
            service_checks: self.service_checks,
            checks: checks.unwrap_or_default(),
            ..Session::default()
        })
    }
}

/// Reads a duration string or a number of nanoseconds; low numbers are seconds. Anything else is 0.
fn lock_delay<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let delay = go_compat::optional_nanoseconds(deserializer)?;
    Ok(delay.map(|delay| {
        if delay < MIN_LOCK_DELAY_NANOSECONDS {
            delay.wrapping_mul(SECOND)
        } else {
            delay
        }
    }))
}
