//! The configuration of a Connect proxy, as registrations and responses contain it. The agent stores
//! it for the proxies, and doesn't interpret it.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The `Proxy` field of an instance. Instances that aren't proxies have none, which appears in responses
/// as an empty object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(from = "ProxyConfig")]
pub(crate) struct Proxy(Option<Box<ProxyConfig>>);

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ProxyConfig {
    #[serde(
        alias = "destination_service_name",
        skip_serializing_if = "String::is_empty"
    )]
    pub destination_service_name: String,
    #[serde(
        rename = "DestinationServiceID",
        alias = "destination_service_id",
        skip_serializing_if = "String::is_empty"
    )]
    pub destination_service_id: String,
    #[serde(
        alias = "local_service_address",
        skip_serializing_if = "String::is_empty"
    )]
    pub local_service_address: String,
    #[serde(alias = "local_service_port", skip_serializing_if = "is_zero")]
    pub local_service_port: i64,
    #[serde(skip_serializing_if = "is_missing")]
    pub config: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Upstream>,
    #[serde(alias = "mesh_gateway")]
    pub mesh_gateway: MeshGateway,
    pub expose: Expose,
}

/// A service that the proxy connects to for its instance.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Upstream {
    #[serde(alias = "destination_type")]
    pub destination_type: String,
    #[serde(
        alias = "destination_namespace",
        skip_serializing_if = "String::is_empty"
    )]
    pub destination_namespace: String,
    #[serde(alias = "destination_name")]
    pub destination_name: String,
    pub datacenter: String,
    #[serde(alias = "local_bind_address", skip_serializing_if = "String::is_empty")]
    pub local_bind_address: String,
    #[serde(alias = "local_bind_port")]
    pub local_bind_port: i64,
    pub config: Option<Map<String, Value>>,
    #[serde(alias = "mesh_gateway")]
    pub mesh_gateway: MeshGateway,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct MeshGateway {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
}

/// The paths of the instance that are reachable without Connect.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Expose {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub checks: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<ExposedPath>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct ExposedPath {
    #[serde(alias = "listener_port")]
    pub listener_port: i64,
    pub path: String,
    #[serde(alias = "local_path_port")]
    pub local_path_port: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    pub parsed_from_check: bool,
}

static NO_PROXY: ProxyConfig = ProxyConfig {
    destination_service_name: String::new(),
    destination_service_id: String::new(),
    local_service_address: String::new(),
    local_service_port: 0,
    config: None,
    upstreams: Vec::new(),
    mesh_gateway: MeshGateway {
        mode: String::new(),
    },
    expose: Expose {
        checks: false,
        paths: Vec::new(),
    },
};

impl Proxy {
    pub(crate) fn config(&self) -> &ProxyConfig {
        self.0.as_deref().unwrap_or(&NO_PROXY)
    }
}

impl Serialize for Proxy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.config().serialize(serializer)
    }
}

impl From<ProxyConfig> for Proxy {
    fn from(config: ProxyConfig) -> Self {
        Self((config != NO_PROXY).then(|| Box::new(config)))
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            destination_type: "service".to_owned(),
            destination_namespace: String::new(),
            destination_name: String::new(),
            datacenter: String::new(),
            local_bind_address: String::new(),
            local_bind_port: 0,
            config: None,
            mesh_gateway: MeshGateway::default(),
        }
    }
}

impl ProxyConfig {
    /// Checks the upstreams. The errors are Consul's.
    pub(crate) fn upstream_errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        for upstream in &self.upstreams {
            if upstream.destination_name.trim().is_empty() {
                errors.push("upstream destination name cannot be empty".to_owned());
            } else if upstream.local_bind_port == 0 {
                errors.push("upstream local bind port cannot be zero".to_owned());
            }
        }
        errors
    }
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

fn is_missing(config: &Option<Map<String, Value>>) -> bool {
    config.as_ref().is_none_or(Map::is_empty)
}
