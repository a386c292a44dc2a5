//! A session, which holds locks.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::go_compat;

/// A session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Session {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub node: String,
    /// In nanoseconds.
    pub lock_delay: i64,
    pub behavior: String,
    #[serde(rename = "TTL")]
    pub ttl: String,
    pub node_checks: Option<Vec<String>>,
    pub service_checks: Option<Vec<SessionServiceCheck>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A check of a service that a session depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct SessionServiceCheck {
    #[serde(rename = "ID")]
    pub id: String,
    pub namespace: String,
}

/// A session that isn't renewed ends after this many times its TTL. Consul guarantees a time between
/// one and two TTLs, and uses two.
const TTL_MULTIPLIER: u32 = 2;

impl Session {
    /// The behavior that releases the locks when the session ends.
    pub(crate) const RELEASE: &str = "release";
    /// The behavior that deletes the locked keys when the session ends.
    pub(crate) const DELETE: &str = "delete";

    /// When the session ends unless it is renewed. `None` if it has no TTL.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        Some(now + self.time_to_live()? * TTL_MULTIPLIER)
    }

    /// The ids of all checks that the session depends on.
    pub(crate) fn all_checks(&self) -> impl Iterator<Item = &String> {
        let of_node = self.node_checks.iter().flatten();
        let of_services = self.service_checks.iter().flatten().map(|check| &check.id);
        self.checks.iter().chain(of_node).chain(of_services)
    }

    fn time_to_live(&self) -> Option<Duration> {
        let nanoseconds = go_compat::parse_duration(&self.ttl).ok()?;
        Some(go_compat::duration(nanoseconds)).filter(|ttl| !ttl.is_zero())
    }
}
