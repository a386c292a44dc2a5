//! The definition of a check, as registrations carry it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::json::{Json, present};
use crate::go_compat;
use crate::store::CheckStatus;

/// Consul runs no check more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// The fields of a check. Durations are in nanoseconds, as they came.
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

/// What a check does.
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

/// The body of `/v1/agent/check/update/:id`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct CheckUpdate {
    pub status: String,
    pub output: String,
}

/// The body of `/v1/agent/check/register`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Body")]
pub(crate) struct CheckRegistration(pub CheckDefinition);

/// A check inside the registration of a service.
#[derive(Default, Deserialize)]
#[serde(try_from = "Body")]
pub(super) struct ServiceCheck(CheckDefinition);

/// The fields of a check, wherever it is.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct Body {
    name: String,
    status: String,
    notes: String,
    #[serde(rename = "ServiceID", alias = "service_id")]
    service_id: String,
    #[serde(alias = "script_args")]
    script_args: Vec<String>,
    args: Vec<String>,
    #[serde(rename = "HTTP")]
    http: String,
    header: BTreeMap<String, Vec<String>>,
    method: String,
    body: String,
    #[serde(rename = "TCP")]
    tcp: String,
    #[serde(deserialize_with = "nanoseconds")]
    interval: i64,
    alias_node: String,
    alias_service: String,
    #[serde(rename = "DockerContainerID", alias = "docker_container_id")]
    docker_container_id: String,
    shell: String,
    #[serde(rename = "GRPC")]
    grpc: String,
    #[serde(rename = "GRPCUseTLS")]
    grpc_use_tls: bool,
    #[serde(rename = "TLSSkipVerify", alias = "tls_skip_verify")]
    tls_skip_verify: bool,
    #[serde(deserialize_with = "nanoseconds")]
    timeout: i64,
    #[serde(rename = "TTL", deserialize_with = "nanoseconds")]
    ttl: i64,
    success_before_passing: i64,
    failures_before_critical: i64,
    #[serde(
        alias = "deregister_critical_service_after",
        deserialize_with = "nanoseconds"
    )]
    deregister_critical_service_after: i64,
    output_max_size: i64,

    // Of a check that is registered alone.
    #[serde(rename = "ID", deserialize_with = "present")]
    id: Option<String>,
    #[serde(deserialize_with = "present")]
    token: Option<String>,

    // Of a check inside the registration of a service.
    #[serde(rename = "CheckID", deserialize_with = "present")]
    check_id: Option<String>,
    #[serde(rename = "ProxyHTTP", deserialize_with = "present")]
    proxy_http: Option<String>,
    #[serde(rename = "ProxyGRPC", deserialize_with = "present")]
    proxy_grpc: Option<String>,
}

impl TryFrom<Body> for CheckRegistration {
    type Error = String;

    fn try_from(body: Body) -> Result<Self, String> {
        refuse("CheckID", body.check_id.as_ref())?;
        refuse("ProxyHTTP", body.proxy_http.as_ref())?;
        refuse("ProxyGRPC", body.proxy_grpc.as_ref())?;
        Ok(Self(CheckDefinition {
            id: body.id.clone().unwrap_or_default(),
            ..CheckDefinition::from(body)
        }))
    }
}

impl TryFrom<Body> for ServiceCheck {
    type Error = String;

    fn try_from(body: Body) -> Result<Self, String> {
        refuse("ID", body.id.as_ref())?;
        refuse("Token", body.token.as_ref())?;
        Ok(Self(CheckDefinition {
            id: body.check_id.clone().unwrap_or_default(),
            proxy_http: body.proxy_http.clone().unwrap_or_default(),
            proxy_grpc: body.proxy_grpc.clone().unwrap_or_default(),
            // Accepted, but the check belongs to the service around it.
            service_id: String::new(),
            ..CheckDefinition::from(body)
        }))
    }
}

fn refuse(name: &str, field: Option<&String>) -> Result<(), String> {
    field.map_or(Ok(()), |_| Err(format!("unknown field `{name}`")))
}

impl From<Body> for CheckDefinition {
    fn from(body: Body) -> Self {
        Self {
            name: body.name,
            status: body.status,
            notes: body.notes,
            service_id: body.service_id,
            script_args: if body.script_args.is_empty() {
                body.args
            } else {
                body.script_args
            },
            http: body.http,
            header: body.header,
            method: body.method,
            body: body.body,
            tcp: body.tcp,
            interval: body.interval,
            alias_node: body.alias_node,
            alias_service: body.alias_service,
            docker_container_id: body.docker_container_id,
            shell: body.shell,
            grpc: body.grpc,
            grpc_use_tls: body.grpc_use_tls,
            tls_skip_verify: body.tls_skip_verify,
            timeout: body.timeout,
            ttl: body.ttl,
            success_before_passing: body.success_before_passing,
            failures_before_critical: body.failures_before_critical,
            deregister_critical_service_after: body.deregister_critical_service_after,
            output_max_size: body.output_max_size,
            ..Self::default()
        }
    }
}

impl From<ServiceCheck> for CheckDefinition {
    fn from(ServiceCheck(check): ServiceCheck) -> Self {
        check
    }
}

impl CheckDefinition {
    /// Whether nothing at all was said. Consul ignores such a check in a service's registration.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What kind of check this is, or what is wrong with it.
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

    /// The status a new check starts with, if it is a known one.
    pub(crate) fn initial_status(&self) -> Option<CheckStatus> {
        match self.status.as_str() {
            "" => Some(CheckStatus::Critical),
            text => CheckStatus::parse(text),
        }
    }

    pub(crate) fn interval(&self) -> Duration {
        go_compat::duration(self.interval).max(SHORTEST_INTERVAL)
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        (self.timeout > 0).then(|| go_compat::duration(self.timeout))
    }

    pub(crate) fn deregister_after(&self) -> Option<Duration> {
        let after = self.deregister_critical_service_after;
        (after > 0).then(|| go_compat::duration(after))
    }
}

impl CheckKind {
    /// What the field `Type` says.
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

/// Reads a duration: a text such as `10s`, or a number of nanoseconds. Anything else counts as 0.
pub(crate) fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    match Json::deserialize(deserializer)? {
        Json::String(text) => go_compat::parse_duration(&text).map_err(Error::custom),
        Json::Number(number) => Ok(number.as_f64().unwrap_or_default() as i64),
        _ => Ok(0),
    }
}

/// [`nanoseconds`], unless the field is missing or `null`.
pub(super) fn some_nanoseconds<'de, D>(deserializer: D) -> Result<Option<i64>, D::Error>
where
    D: Deserializer<'de>,
{
    match Json::deserialize(deserializer)? {
        Json::Null => Ok(None),
        json => nanoseconds(json).map(Some).map_err(Error::custom),
    }
}
