//! The records of the catalog, in the shape and field order in which Consul's health API shows
//! them. Other endpoints show the same records in other shapes: see [`crate::wire`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

use crate::decode::{duration_text, nanoseconds};

/// A machine that instances run on. This registry has one of its own; others come from
/// `/v1/catalog/register`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Node {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Node")]
    pub name: String,
    pub address: String,
    pub datacenter: String,
    pub tagged_addresses: Option<BTreeMap<String, String>>,
    pub meta: Option<BTreeMap<String, String>>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// One instance of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Service {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Service")]
    pub name: String,
    pub tags: Vec<String>,
    pub address: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tagged_addresses: BTreeMap<String, ServiceAddress>,
    pub meta: Option<BTreeMap<String, String>>,
    pub port: i64,
    pub weights: Weights,
    pub enable_tag_override: bool,
    pub proxy: Proxy,
    pub connect: Connect,
    pub create_index: u64,
    pub modify_index: u64,
}

/// An address under which an instance is also reachable, such as `wan`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ServiceAddress {
    pub address: String,
    pub port: i64,
}

/// The share of traffic an instance gets in DNS answers while its checks pass or warn.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub passing: i64,
    pub warning: i64,
}

/// Consul shows a proxy configuration on every instance; here it is always the empty one, because
/// Connect isn't served.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Proxy {
    pub mesh_gateway: Empty,
    pub expose: Empty,
}

/// Serialises as `{}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Empty {}

/// What is kept of an instance's `Connect` field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Connect {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
}

/// A health check and its last result. It belongs to an instance, or to the whole node when
/// `service_id` is empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Check {
    pub node: String,
    #[serde(rename = "CheckID")]
    pub id: String,
    pub name: String,
    pub status: Status,
    pub notes: String,
    pub output: String,
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    pub service_name: String,
    pub service_tags: Vec<String>,
    #[serde(rename = "Type")]
    pub kind: String,
    /// What `/v1/catalog/register` said of it; others run such checks, not this agent.
    #[serde(serialize_with = "serialize_definition")]
    pub definition: Option<Box<Definition>>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// How a check is to be run by whoever runs it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Definition {
    #[serde(
        deserialize_with = "duration_text",
        skip_serializing_if = "String::is_empty"
    )]
    pub interval: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub output_max_size: i64,
    #[serde(
        deserialize_with = "duration_text",
        skip_serializing_if = "String::is_empty"
    )]
    pub timeout: String,
    #[serde(
        deserialize_with = "duration_text",
        skip_serializing_if = "String::is_empty"
    )]
    pub deregister_critical_service_after: String,
    #[serde(rename = "HTTP", skip_serializing_if = "String::is_empty")]
    pub http: String,
    #[serde(rename = "TLSSkipVerify", skip_serializing_if = "std::ops::Not::not")]
    pub tls_skip_verify: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, Vec<String>>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub body: String,
    #[serde(rename = "TCP", skip_serializing_if = "String::is_empty")]
    pub tcp: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub script_args: Vec<String>,
    #[serde(rename = "DockerContainerID", skip_serializing_if = "String::is_empty")]
    pub docker_container_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub shell: String,
    #[serde(rename = "GRPC", skip_serializing_if = "String::is_empty")]
    pub grpc: String,
    #[serde(rename = "GRPCUseTLS", skip_serializing_if = "std::ops::Not::not")]
    pub grpc_use_tls: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub alias_service: String,
    /// Nanoseconds.
    #[serde(
        rename = "TTL",
        deserialize_with = "nanoseconds",
        skip_serializing_if = "is_zero"
    )]
    pub ttl: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A check without a definition has an empty one.
fn serialize_definition<S: Serializer>(
    definition: &Option<Box<Definition>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match definition {
        Some(definition) => definition.serialize(serializer),
        None => Empty {}.serialize(serializer),
    }
}

/// What a check says of its subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Fit for traffic.
    Passing,
    /// Fit for traffic, but somebody should look.
    Warning,
    /// Not fit for traffic. New checks start here, until their first result.
    #[default]
    Critical,
}

impl Status {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "passing" => Some(Self::Passing),
            "warning" => Some(Self::Warning),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            passing: 1,
            warning: 1,
        }
    }
}

impl Service {
    /// Whether it is a proxy or a gateway of Connect's, which aren't served here.
    pub(crate) fn is_of_mesh(&self) -> bool {
        const KINDS: [&str; 4] = [
            "connect-proxy",
            "ingress-gateway",
            "mesh-gateway",
            "terminating-gateway",
        ];
        KINDS.contains(&self.kind.as_str())
    }

    /// Adds the `lan_*` and `wan_*` addresses that Consul derives from an address that is an IP.
    pub(crate) fn add_derived_addresses(&mut self) {
        let suffix = match self.address.parse() {
            Ok(IpAddr::V4(_)) => "ipv4",
            Ok(IpAddr::V6(_)) => "ipv6",
            Err(_) => return,
        };
        for network in ["lan", "wan"] {
            self.tagged_addresses
                .entry(format!("{network}_{suffix}"))
                .or_insert_with(|| ServiceAddress {
                    address: self.address.clone(),
                    port: self.port,
                });
        }
    }
}

impl Check {
    /// The `Type` of the checks that stand for maintenance.
    pub(crate) const MAINTENANCE: &str = "maintenance";

    pub(crate) fn is_maintenance(&self) -> bool {
        self.kind == Self::MAINTENANCE
    }
}
