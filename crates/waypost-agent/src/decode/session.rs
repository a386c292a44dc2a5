//! What a client says about a session it wants.

use super::{Decode, Fault, Fields, Json};
use crate::go;
use crate::store::{ServiceCheck, Session};

const SECOND: i64 = 1_000_000_000;
const DEFAULT_LOCK_DELAY: i64 = 15 * SECOND;
const SHORTEST_TTL: i64 = 10 * SECOND;
const LONGEST_TTL: i64 = 24 * 60 * 60 * SECOND;

/// A lock delay that is less than this must have been meant in seconds.
const SECONDS_BELOW: i64 = 1000;

/// The check that tells whether a node is there at all.
const NODE_HEALTH: &str = "serfHealth";

/// The body of `/v1/session/create`.
#[derive(Debug, Default)]
pub(crate) struct SessionDefinition {
    name: String,
    node: Option<String>,
    lock_delay: Option<i64>,
    behavior: String,
    ttl: String,
    /// As far as said: no checks are something else than none being mentioned.
    checks: Option<Option<Vec<String>>>,
    node_checks: Option<Option<Vec<String>>>,
    service_checks: Option<Vec<ServiceCheck>>,
}

impl SessionDefinition {
    pub(crate) fn decode(json: Json<'_>) -> Result<Self, Fault> {
        const GO_TYPE: &str = "struct { LockDelay interface {}; *structs.Alias }";
        let says = |name: &str| match &json {
            Json::Object(fields) => fields.iter().any(|(key, _)| key.eq_ignore_ascii_case(name)),
            _ => false,
        };
        let (says_checks, says_node_checks) = (says("Checks"), says("NodeChecks"));
        let mut fields = Fields::of(json, "", GO_TYPE)?;
        let ids = |json| match json {
            Json::Array(_) => Vec::decode(json).map(Some),
            other => Err(Fault::mismatch(&other, "[]types.CheckID")),
        };
        let strings = |json| Vec::<String>::decode(json).map(Some);
        let checks: Option<Vec<String>> = fields.take_with(&["Checks"], ids);
        let node_checks: Option<Vec<String>> = fields.take_with(&["NodeChecks"], strings);
        let definition = Self {
            name: fields.take("Name"),
            node: fields.take_any(&["Node"]),
            lock_delay: fields.take_with(&["LockDelay"], |json| lock_delay(&json).map(Some)),
            behavior: fields.take("Behavior"),
            ttl: fields.take("TTL"),
            checks: says_checks.then_some(checks),
            node_checks: says_node_checks.then_some(node_checks),
            service_checks: fields.take_with(&["ServiceChecks"], service_checks),
        };
        fields.finish_leniently()?;
        Ok(definition)
    }

    /// The session without its id. The error is Consul's.
    pub(crate) fn into_session(self, here: &str) -> Result<Session, String> {
        let behavior = match self.behavior.as_str() {
            "" => Session::RELEASE.to_owned(),
            Session::RELEASE | Session::DELETE => self.behavior,
            other => return Err(format!("Invalid Behavior setting '{other}'")),
        };
        if !self.ttl.is_empty() {
            let ttl = go::parse_duration(&self.ttl)
                .map_err(|fault| format!("Session TTL '{}' invalid: {fault}", self.ttl))?;
            if ttl != 0 && !(SHORTEST_TTL..=LONGEST_TTL).contains(&ttl) {
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
            // Who says "no checks" in the old way or in the new means none of both.
            Some(checks) if is_empty(&checks) => (None, Some(Vec::new())),
            Some(_) if is_empty(&node_checks) => (None, node_checks),
            Some(checks) => (checks, node_checks),
        };
        Ok(Session {
            name: self.name,
            node: self.node.unwrap_or_else(|| here.to_owned()),
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

/// A duration, or nanoseconds, or seconds if it can't be nanoseconds. What is neither is 0.
fn lock_delay(json: &Json<'_>) -> Result<i64, Fault> {
    let delay = match json {
        Json::String(text) => go::parse_duration(text).map_err(Fault::Words)?,
        Json::Number(number) => number.parse::<f64>().map_or(0, |number| number as i64),
        _ => 0,
    };
    Ok(if delay < SECONDS_BELOW {
        delay.wrapping_mul(SECOND)
    } else {
        delay
    })
}

fn service_checks(json: Json<'_>) -> Result<Option<Vec<ServiceCheck>>, Fault> {
    let Json::Array(items) = json else {
        return Err(Fault::mismatch(&json, "[]structs.ServiceCheck"));
    };
    let one = |json| {
        let mut fields = Fields::of(json, "ServiceCheck.ServiceChecks", "structs.ServiceCheck")?;
        let check = ServiceCheck {
            id: fields.take("ID"),
            namespace: fields.take("Namespace"),
        };
        fields.finish_leniently()?;
        Ok(check)
    };
    items
        .into_iter()
        .map(one)
        .collect::<Result<_, _>>()
        .map(Some)
}
