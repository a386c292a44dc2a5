//! The definition of a check, as registrations carry it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Fault, Fields, Json};
use crate::go;
use crate::store::Status;

/// Consul runs no check more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// The fields of a check. Durations are in nanoseconds, as they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct CheckDefinition {
    /// Of `CheckID`; in a definition of its own also of `ID`.
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
#[derive(Debug, Default)]
pub(crate) struct CheckUpdate {
    pub status: String,
    pub output: String,
}

impl CheckUpdate {
    pub(crate) fn decode(json: Json) -> Result<Self, Fault> {
        let mut fields = Fields::of(json, "checkUpdate", "agent.checkUpdate")?;
        let update = Self {
            status: fields.take("Status"),
            output: fields.take("Output"),
        };
        fields.finish()?;
        Ok(update)
    }
}

impl CheckDefinition {
    /// Reads the check inside a service's registration.
    pub(crate) fn decode(json: Json) -> Result<Self, Fault> {
        Self::decode_as(json, &["CheckID"], false)
    }

    /// Reads the body of `/v1/agent/check/register`.
    pub(crate) fn decode_alone(json: Json) -> Result<Self, Fault> {
        Self::decode_as(json, &["ID", "CheckID"], true)
    }

    fn decode_as(json: Json, id: &[&str], alone: bool) -> Result<Self, Fault> {
        let mut fields = Fields::of(json, "", "structs.CheckType")?;
        let mut check = Self {
            id: fields.take_any(id).unwrap_or_default(),
            name: fields.take("Name"),
            status: fields.take("Status"),
            notes: fields.take("Notes"),
            script_args: fields
                .take_any(&["ScriptArgs", "Args", "script_args"])
                .unwrap_or_default(),
            http: fields.take("HTTP"),
            header: fields.take("Header"),
            method: fields.take("Method"),
            body: fields.take("Body"),
            tcp: fields.take("TCP"),
            alias_node: fields
                .take_any(&["AliasNode", "alias_node"])
                .unwrap_or_default(),
            alias_service: fields
                .take_any(&["AliasService", "alias_service"])
                .unwrap_or_default(),
            docker_container_id: fields
                .take_any(&["DockerContainerID", "docker_container_id"])
                .unwrap_or_default(),
            shell: fields.take("Shell"),
            grpc: fields.take("GRPC"),
            grpc_use_tls: fields.take("GRPCUseTLS"),
            tls_skip_verify: fields
                .take_any(&["TLSSkipVerify", "tls_skip_verify"])
                .unwrap_or_default(),
            success_before_passing: fields.take("SuccessBeforePassing"),
            failures_before_critical: fields.take("FailuresBeforeCritical"),
            proxy_http: fields.take("ProxyHTTP"),
            proxy_grpc: fields.take("ProxyGRPC"),
            output_max_size: fields.take("OutputMaxSize"),
            ..Self::default()
        };
        if alone {
            check.service_id = fields
                .take_any(&["ServiceID", "service_id"])
                .unwrap_or_default();
        }
        let interval = take_raw(&mut fields, &["Interval"]);
        let timeout = take_raw(&mut fields, &["Timeout"]);
        let ttl = take_raw(&mut fields, &["TTL"]);
        let after = take_raw(
            &mut fields,
            &[
                "DeregisterCriticalServiceAfter",
                "deregister_critical_service_after",
            ],
        );
        fields.finish()?;
        check.interval = nanoseconds(interval)?;
        check.timeout = nanoseconds(timeout)?;
        check.ttl = nanoseconds(ttl)?;
        check.deregister_critical_service_after = nanoseconds(after)?;
        Ok(check)
    }

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
    pub(crate) fn initial_status(&self) -> Option<Status> {
        match self.status.as_str() {
            "" => Some(Status::Critical),
            text => Status::parse(text),
        }
    }

    pub(crate) fn interval(&self) -> Duration {
        go::duration(self.interval).max(SHORTEST_INTERVAL)
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        (self.timeout > 0).then(|| go::duration(self.timeout))
    }

    pub(crate) fn deregister_after(&self) -> Option<Duration> {
        let after = self.deregister_critical_service_after;
        (after > 0).then(|| go::duration(after))
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

/// Takes a duration as it came: whether it can be read is asked after all else was, as in Consul.
fn take_raw(fields: &mut Fields, names: &[&str]) -> Option<Json> {
    fields.take_with(names, |json| Ok(Some(json)))
}

/// A duration is a text such as `10s`, or a number of nanoseconds; anything else counts as none.
fn nanoseconds(json: Option<Json>) -> Result<i64, Fault> {
    match json {
        Some(Json::String(text)) => go::parse_duration(&text),
        Some(Json::Number(number)) => Ok(number.as_f64().unwrap_or_default() as i64),
        _ => Ok(0),
    }
}
