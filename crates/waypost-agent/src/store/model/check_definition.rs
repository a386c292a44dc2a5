//! The definition of a check that this agent runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::catalog::CheckStatus;
use crate::go_compat;

/// The minimum interval of a check, as in Consul.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The fields of a check as a client sent them. Durations are in nanoseconds, and may be negative.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct CheckDefinition {
    pub id: String,
    pub name: String,
    pub status: String,
    pub notes: String,
    pub service_id: String,
    pub script_args: Vec<String>,
    pub http: String,
    pub header: BTreeMap<String, Vec<String>>,
    pub method: String,
    pub body: String,
    pub tcp: String,
    pub interval: i64,
    pub alias_node: String,
    pub alias_service: String,
    pub docker_container_id: String,
    pub shell: String,
    pub grpc: String,
    pub grpc_use_tls: bool,
    pub tls_skip_verify: bool,
    pub timeout: i64,
    pub ttl: i64,
    pub success_before_passing: i64,
    pub failures_before_critical: i64,
    pub proxy_http: String,
    pub proxy_grpc: String,
    pub deregister_critical_service_after: i64,
    pub output_max_size: i64,
}

impl CheckDefinition {
    /// Whether no field is set. Consul ignores such a check in the registration of a service.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The kind of this check. The error is Consul's.
    pub(crate) fn kind(&self) -> Result<CheckKind, &'static str> {
        let runs_at_intervals = !self.script_args.is_empty()
            || !self.http.is_empty()
            || !self.tcp.is_empty()
            || !self.grpc.is_empty();
        let is_alias = !self.alias_node.is_empty() || !self.alias_service.is_empty();
        if self.interval > 0 && self.ttl > 0 {
            return Err("Interval and TTL cannot both be specified");
        }
        if runs_at_intervals && self.interval <= 0 {
            return Err("Interval must be > 0 for Script, HTTP, or TCP checks");
        }
        if runs_at_intervals && is_alias {
            return Err("Interval cannot be set for Alias checks");
        }
        if is_alias && self.ttl > 0 {
            return Err("TTL must be not be set for Alias checks");
        }
        if !runs_at_intervals && !is_alias && self.ttl <= 0 {
            return Err("TTL must be > 0 for TTL checks");
        }
        if self.output_max_size < 0 {
            return Err("MaxOutputMaxSize must be positive");
        }
        Ok(if !self.grpc.is_empty() {
            CheckKind::Grpc
        } else if !self.http.is_empty() {
            CheckKind::Http
        } else if self.ttl > 0 {
            CheckKind::Ttl
        } else if !self.tcp.is_empty() {
            CheckKind::Tcp
        } else if is_alias {
            CheckKind::Alias
        } else if !self.docker_container_id.is_empty() {
            CheckKind::Docker
        } else {
            CheckKind::Script
        })
    }

    /// The status that a new check starts with. `None` if it is unknown.
    pub(crate) fn initial_status(&self) -> Option<CheckStatus> {
        match self.status.as_str() {
            "" => Some(CheckStatus::Critical),
            text => CheckStatus::parse(text),
        }
    }

    /// How long to wait between two runs.
    pub(crate) fn interval(&self) -> Duration {
        go_compat::duration(self.interval).max(MIN_INTERVAL)
    }

    /// `None` if the definition sets no timeout.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        (self.timeout > 0).then(|| go_compat::duration(self.timeout))
    }

    /// How long the check may be critical before its service is deregistered. `None` if forever.
    pub(crate) fn deregister_after(&self) -> Option<Duration> {
        let after = self.deregister_critical_service_after;
        (after > 0).then(|| go_compat::duration(after))
    }
}

/// How a check is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckKind {
    Ttl,
    Http,
    Tcp,
    Grpc,
    Alias,
    Docker,
    Script,
}

impl CheckKind {
    /// The value of the field `Type`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ttl => "ttl",
            Self::Http => "http",
            Self::Tcp => "tcp",
            Self::Grpc => "grpc",
            Self::Alias => "alias",
            Self::Docker => "docker",
            Self::Script => "script",
        }
    }
}
