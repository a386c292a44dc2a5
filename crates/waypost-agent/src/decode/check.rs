//! The bodies of `/v1/agent/check/register` and `/v1/agent/check/update/:id`, and the checks in the
//! body of `/v1/agent/service/register`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::json::present;
use crate::go_compat::nanoseconds;
use crate::store::CheckDefinition;

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

/// A check in the body of `/v1/agent/service/register`.
#[derive(Default, Deserialize)]
#[serde(try_from = "Body")]
pub(super) struct ServiceCheck(CheckDefinition);

/// The fields of a check in both bodies.
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

    // Only in the registration of a single check.
    #[serde(rename = "ID", deserialize_with = "present")]
    id: Option<String>,
    #[serde(deserialize_with = "present")]
    token: Option<String>,

    // Only in a check within the registration of a service.
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
            // Accepted, but ignored: the check belongs to the service that is registered.
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
