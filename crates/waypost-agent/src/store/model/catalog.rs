//! Nodes, services and checks, with the field names and field order of Consul's health API. Other
//! endpoints have other formats: see [`crate::wire`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize, Serializer};

use super::proxy::Proxy;
use crate::go_compat::{duration_text, nanoseconds};

/// A machine that instances run on: the one of this agent, or one from `/v1/catalog/register`.
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

/// A further address of an instance, such as `wan`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ServiceAddress {
    pub address: String,
    pub port: i64,
}

/// The weight of an instance in SRV records while its checks are passing or warning.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Weights {
    pub passing: i64,
    pub warning: i64,
}

/// Serializes as `{}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub(crate) struct Empty {}

/// The supported part of an instance's `Connect` field.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Connect {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub native: bool,
}

/// A health check and its last result. It belongs to an instance, or to the node if `service_id` is
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Check {
    pub node: String,
    #[serde(rename = "CheckID")]
    pub id: String,
    pub name: String,
    pub status: CheckStatus,
    pub notes: String,
    pub output: String,
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    pub service_name: String,
    pub service_tags: Vec<String>,
    #[serde(rename = "Type")]
    pub kind: String,
    /// The definition given to `/v1/catalog/register`. The agent doesn't run such checks.
    #[serde(serialize_with = "serialize_definition")]
    pub definition: Option<Box<CatalogCheckDefinition>>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// The definition of a check that an external process runs.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CatalogCheckDefinition {
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
    /// In nanoseconds.
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

/// A missing definition is serialized as an empty one.
fn serialize_definition<S: Serializer>(
    definition: &Option<Box<CatalogCheckDefinition>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match definition {
        Some(definition) => definition.serialize(serializer),
        None => Empty {}.serialize(serializer),
    }
}

/// The status of a check, from best to worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckStatus {
    /// Healthy.
    Passing,
    /// Healthy, but needs attention.
    Warning,
    /// Unhealthy. The default until the first result.
    #[default]
    Critical,
}

impl CheckStatus {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "passing" => Some(Self::Passing),
            "warning" => Some(Self::Warning),
            "critical" => Some(Self::Critical),
            _ => None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Weights {
    /// Checks the range of the weights. The error is Consul's.
    pub(crate) fn validate(&self) -> Result<(), &'static str> {
        const MAX: i64 = 65_535;
        if self.passing < 1 {
            Err("Passing must be greater than 0")
        } else if self.warning < 0 {
            Err("Warning must be greater or equal than 0")
        } else if self.passing > MAX || self.warning > MAX {
            Err("DNS Weight must be between 0 and 65535")
        } else {
            Ok(())
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
    pub(crate) const CONNECT_PROXY: &str = "connect-proxy";

    pub(crate) fn is_connect_proxy(&self) -> bool {
        self.kind == Self::CONNECT_PROXY
    }

    /// The service that this is a Connect proxy of.
    pub(crate) fn proxied_service(&self) -> Option<&str> {
        let config = self.proxy.config();
        self.is_connect_proxy()
            .then_some(config.destination_service_name.as_str())
    }

    /// Whether it is a Connect proxy or gateway.
    pub(crate) fn is_proxy_or_gateway(&self) -> bool {
        const KINDS: [&str; 4] = [
            Service::CONNECT_PROXY,
            "ingress-gateway",
            "mesh-gateway",
            "terminating-gateway",
        ];
        KINDS.contains(&self.kind.as_str())
    }

    /// Adds the `lan_*` and `wan_*` addresses that Consul derives from an IP address.
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
    /// The `Type` of maintenance checks.
    pub(crate) const MAINTENANCE: &str = "maintenance";

    pub(crate) fn is_maintenance(&self) -> bool {
        self.kind == Self::MAINTENANCE
    }
}
