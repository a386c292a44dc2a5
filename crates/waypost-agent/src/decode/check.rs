//! The definition of a check, as registrations carry it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Fault, Fields, Json};
use crate::go;
use crate::store::Status;

macro_rules! go_fields {
    () => {
        "struct { Interval interface {}; Timeout interface {}; TTL interface {}; \
         DeregisterCriticalServiceAfter interface {}; Args []string \"json:\\\"args\\\"\"; \
         ScriptArgsSnake []string \"json:\\\"script_args\\\"\"; \
         DeregisterCriticalServiceAfterSnake interface {} \
         \"json:\\\"deregister_critical_service_after\\\"\"; \
         DockerContainerIDSnake string \"json:\\\"docker_container_id\\\"\"; \
         TLSSkipVerifySnake bool \"json:\\\"tls_skip_verify\\\"\"; "
    };
}

macro_rules! go_end {
    () => {
        "ServiceIDSnake string \"json:\\\"service_id\\\"\"; *structs.Alias }"
    };
}

/// Consul runs no check more often than this.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// What Go calls a check inside a service's registration.
const INSIDE: &str = concat!(
    go_fields!(),
    "ServiceID string \"json:\\\"ServiceID\\\"\"; ",
    go_end!()
);

/// What Go calls a check that is registered alone.
const ALONE: &str = concat!(go_fields!(), go_end!());

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
#[derive(Debug, Default)]
pub(crate) struct CheckUpdate {
    pub status: String,
    pub output: String,
}

impl CheckUpdate {
    pub(crate) fn decode(json: Json<'_>) -> Result<Self, Fault> {
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
    pub(crate) fn decode(json: Json<'_>) -> Result<Self, Fault> {
        let mut fields = Fields::of(json, "", INSIDE)?;
        let mut check = Self {
            id: fields.take("CheckID"),
            proxy_http: fields.take("ProxyHTTP"),
            proxy_grpc: fields.take("ProxyGRPC"),
            ..Self::default()
        };
        check.take_common(fields)?;
        // Known, but what the check belongs to is the service around it.
        check.service_id.clear();
        Ok(check)
    }

    /// Reads the body of `/v1/agent/check/register`.
    pub(crate) fn decode_alone(json: Json<'_>) -> Result<Self, Fault> {
        let mut fields = Fields::of(json, "", ALONE)?;
        let mut check = Self {
            id: fields.take("ID"),
            ..Self::default()
        };
        let _token: String = fields.take("Token");
        check.take_common(fields)?;
        Ok(check)
    }

    fn take_common(&mut self, mut fields: Fields<'_>) -> Result<(), Fault> {
        let both = |fields: &mut Fields<'_>, names: [&str; 2]| -> String {
            fields.take_any(&names).unwrap_or_default()
        };
        self.name = fields.take("Name");
        self.status = fields.take("Status");
        self.notes = fields.take("Notes");
        self.service_id = both(&mut fields, ["ServiceID", "service_id"]);
        self.script_args = fields
            .take_any(&["ScriptArgs", "Args", "script_args"])
            .unwrap_or_default();
        self.http = fields.take("HTTP");
        self.header = fields.take("Header");
        self.method = fields.take("Method");
        self.body = fields.take("Body");
        self.tcp = fields.take("TCP");
        self.alias_node = fields.take("AliasNode");
        self.alias_service = fields.take("AliasService");
        self.docker_container_id = both(&mut fields, ["DockerContainerID", "docker_container_id"]);
        self.shell = fields.take("Shell");
        self.grpc = fields.take("GRPC");
        self.grpc_use_tls = fields.take("GRPCUseTLS");
        self.tls_skip_verify = fields
            .take_any(&["TLSSkipVerify", "tls_skip_verify"])
            .unwrap_or_default();
        self.success_before_passing = fields.take("SuccessBeforePassing");
        self.failures_before_critical = fields.take("FailuresBeforeCritical");
        self.output_max_size = fields.take("OutputMaxSize");
        let durations = [
            &["Interval"][..],
            &["Timeout"],
            &["TTL"],
            &[
                "DeregisterCriticalServiceAfter",
                "deregister_critical_service_after",
            ],
        ]
        .map(|names| fields.take_with(names, |json| Ok(Some(json))));
        fields.finish()?;
        // Whether they can be read is asked only now, as in Consul.
        let [interval, timeout, ttl, deregister_after] = durations.map(nanoseconds);
        self.interval = interval?;
        self.timeout = timeout?;
        self.ttl = ttl?;
        self.deregister_critical_service_after = deregister_after?;
        Ok(())
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

/// A duration is a text such as `10s`, or a number of nanoseconds; anything else counts as none.
pub(super) fn nanoseconds(json: Option<Json<'_>>) -> Result<i64, Fault> {
    match json {
        Some(Json::String(text)) => go::parse_duration(&text).map_err(Fault::Words),
        Some(Json::Number(number)) => Ok(number.parse::<f64>().unwrap_or_default() as i64),
        _ => Ok(0),
    }
}
