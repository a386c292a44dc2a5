//! Records in the responses of `/v1/agent`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::hashstructure::{ABSENT, Hash, bool, int, json, list, pairs, structure, text};
use crate::store::{
    Check, CheckStatus, Connect, Expose, MeshGateway, ProxyConfig, Service, ServiceAddress,
    Upstream, Weights,
};

static EMPTY_META: BTreeMap<String, String> = BTreeMap::new();

/// An instance in `/v1/agent/services` and `/v1/agent/service/:id`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentService<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    meta: &'a BTreeMap<String, String>,
    port: i64,
    address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: &'a BTreeMap<String, ServiceAddress>,
    weights: &'a Weights,
    enable_tag_override: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hash: Option<String>,
    /// Only set for proxies and gateways.
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy: Option<AgentProxy<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<&'a Connect>,
}

/// A proxy configuration without the empty fields of its upstreams.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AgentProxy<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    destination_service_name: &'a str,
    #[serde(rename = "DestinationServiceID", skip_serializing_if = "str::is_empty")]
    destination_service_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    local_service_address: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    local_service_port: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    upstreams: Vec<AgentUpstream<'a>>,
    mesh_gateway: &'a MeshGateway,
    expose: &'a Expose,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AgentUpstream<'a> {
    destination_type: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    destination_namespace: &'a str,
    destination_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    datacenter: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    local_bind_address: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    local_bind_port: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<&'a Map<String, Value>>,
    mesh_gateway: &'a MeshGateway,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl<'a> From<&'a ProxyConfig> for AgentProxy<'a> {
    fn from(config: &'a ProxyConfig) -> Self {
        Self {
            destination_service_name: &config.destination_service_name,
            destination_service_id: &config.destination_service_id,
            local_service_address: &config.local_service_address,
            local_service_port: config.local_service_port,
            config: config.config.as_ref().filter(|config| !config.is_empty()),
            upstreams: config.upstreams.iter().map(AgentUpstream::from).collect(),
            mesh_gateway: &config.mesh_gateway,
            expose: &config.expose,
        }
    }
}

impl AgentProxy<'_> {
    fn content_hash(&self) -> Hash {
        let upstreams = self.upstreams.iter().map(|upstream| {
            let fields = [
                ("DestinationType", text(upstream.destination_type)),
                ("DestinationNamespace", text(upstream.destination_namespace)),
                ("DestinationName", text(upstream.destination_name)),
                ("Datacenter", text(upstream.datacenter)),
                ("LocalBindAddress", text(upstream.local_bind_address)),
                ("LocalBindPort", int(upstream.local_bind_port)),
                ("Config", config_hash(upstream.config)),
                ("MeshGateway", mesh_gateway_hash(upstream.mesh_gateway)),
            ];
            structure("Upstream", &fields)
        });
        let paths = self.expose.paths.iter().map(|path| {
            let fields = [
                ("ListenerPort", int(path.listener_port)),
                ("Path", text(&path.path)),
                ("LocalPathPort", int(path.local_path_port)),
                ("Protocol", text(&path.protocol)),
                ("ParsedFromCheck", bool(path.parsed_from_check)),
            ];
            structure("ExposePath", &fields)
        });
        let expose = [("Checks", bool(self.expose.checks)), ("Paths", list(paths))];
        let fields = [
            (
                "DestinationServiceName",
                text(self.destination_service_name),
            ),
            ("DestinationServiceID", text(self.destination_service_id)),
            ("LocalServiceAddress", text(self.local_service_address)),
            ("LocalServicePort", int(self.local_service_port)),
            ("Config", config_hash(self.config)),
            ("Upstreams", list(upstreams)),
            ("MeshGateway", mesh_gateway_hash(self.mesh_gateway)),
            ("Expose", structure("ExposeConfig", &expose)),
        ];
        structure("AgentServiceConnectProxyConfig", &fields)
    }
}

fn mesh_gateway_hash(gateway: &MeshGateway) -> Hash {
    structure("MeshGatewayConfig", &[("Mode", text(&gateway.mode))])
}

fn config_hash(config: Option<&Map<String, Value>>) -> Hash {
    let entries = config.into_iter().flatten();
    pairs(entries.map(|(key, value)| (key.as_str(), json(value))))
}

impl<'a> From<&'a Upstream> for AgentUpstream<'a> {
    fn from(upstream: &'a Upstream) -> Self {
        Self {
            destination_type: &upstream.destination_type,
            destination_namespace: &upstream.destination_namespace,
            destination_name: &upstream.destination_name,
            datacenter: &upstream.datacenter,
            local_bind_address: &upstream.local_bind_address,
            local_bind_port: upstream.local_bind_port,
            config: upstream.config.as_ref().filter(|config| !config.is_empty()),
            mesh_gateway: &upstream.mesh_gateway,
        }
    }
}

impl<'a> From<&'a Service> for AgentService<'a> {
    fn from(service: &'a Service) -> Self {
        Self {
            kind: &service.kind,
            id: &service.id,
            service: &service.name,
            tags: &service.tags,
            meta: service.meta.as_ref().unwrap_or(&EMPTY_META),
            port: service.port,
            address: &service.address,
            tagged_addresses: &service.tagged_addresses,
            weights: &service.weights,
            enable_tag_override: service.enable_tag_override,
            content_hash: None,
            proxy: service
                .is_proxy_or_gateway()
                .then(|| AgentProxy::from(service.proxy.config())),
            connect: service.connect.native.then_some(&service.connect),
        }
    }
}

impl AgentService<'_> {
    /// The instance with its content hash, and the hash, which is also a header of the response.
    pub(crate) fn with_content_hash(mut self) -> (Self, String) {
        let hash = self.content_hash();
        self.content_hash = Some(hash.clone());
        (self, hash)
    }

    /// In hexadecimal digits, without leading zeros.
    fn content_hash(&self) -> String {
        let tagged_addresses = self.tagged_addresses.iter().map(|(tag, it)| {
            let fields = [("Address", text(&it.address)), ("Port", int(it.port))];
            (tag.as_str(), structure("ServiceAddress", &fields))
        });
        let weights = [
            ("Passing", int(self.weights.passing)),
            ("Warning", int(self.weights.warning)),
        ];
        let connect = self.connect.map_or(ABSENT, |connect| {
            let native = ("Native", bool(connect.native));
            structure("AgentServiceConnect", &[native, ("SidecarService", ABSENT)])
        });
        let meta = self.meta.iter().map(|(key, it)| (key.as_str(), text(it)));
        let fields = [
            ("Kind", text(self.kind)),
            ("ID", text(self.id)),
            ("Service", text(self.service)),
            ("Tags", list(self.tags.iter().map(|tag| text(tag)))),
            ("Meta", pairs(meta)),
            ("Port", int(self.port)),
            ("Address", text(self.address)),
            ("TaggedAddresses", pairs(tagged_addresses)),
            ("Weights", structure("AgentWeights", &weights)),
            ("EnableTagOverride", bool(self.enable_tag_override)),
            // Never set in a response about a single instance.
            ("CreateIndex", ABSENT),
            ("ModifyIndex", ABSENT),
            ("ContentHash", text("")),
            (
                "Proxy",
                self.proxy.as_ref().map_or(ABSENT, AgentProxy::content_hash),
            ),
            ("Connect", connect),
        ];
        format!("{:x}", structure("AgentService", &fields))
    }
}

/// The health of a service in `/v1/agent/health/service/…`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ServiceHealth<'a> {
    pub aggregated_status: &'a str,
    pub service: Option<AgentService<'a>>,
    pub checks: Option<Vec<AgentCheck<'a>>>,
}

/// A check in `/v1/agent/health/service/…`, where the definition is always empty.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentCheck<'a> {
    node: &'a str,
    #[serde(rename = "CheckID")]
    id: &'a str,
    name: &'a str,
    status: CheckStatus,
    notes: &'a str,
    output: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: Option<&'a [String]>,
    #[serde(rename = "Type")]
    kind: &'a str,
    definition: EmptyDefinition,
    create_index: u64,
    modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EmptyDefinition {
    interval: &'static str,
    timeout: &'static str,
    deregister_critical_service_after: &'static str,
    #[serde(rename = "HTTP")]
    http: &'static str,
    header: Option<()>,
    method: &'static str,
    body: &'static str,
    #[serde(rename = "TLSSkipVerify")]
    tls_skip_verify: bool,
    #[serde(rename = "TCP")]
    tcp: &'static str,
}

impl<'a> From<&'a Check> for AgentCheck<'a> {
    fn from(check: &'a Check) -> Self {
        Self {
            node: &check.node,
            id: &check.id,
            name: &check.name,
            status: check.status,
            notes: &check.notes,
            output: &check.output,
            service_id: &check.service_id,
            service_name: &check.service_name,
            service_tags: Some(check.service_tags.as_slice()).filter(|tags| !tags.is_empty()),
            kind: "",
            definition: EmptyDefinition {
                interval: "0s",
                timeout: "0s",
                deregister_critical_service_after: "0s",
                http: "",
                header: None,
                method: "",
                body: "",
                tls_skip_verify: false,
                tcp: "",
            },
            create_index: 0,
            modify_index: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(service: serde_json::Value) -> String {
        let service: Service = serde_json::from_value(service).unwrap();
        AgentService::from(&service).content_hash()
    }

    /// The hashes are those of a real Consul.
    #[test]
    fn the_content_hash_of_a_proxy_matches_consul() {
        let sidecar = serde_json::json!({
            "Kind": "connect-proxy", "ID": "w1-sidecar-proxy", "Service": "web-sidecar-proxy",
            "Tags": ["a"], "Meta": {"k": "v"}, "Port": 21000,
            "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": "w1",
                "LocalServiceAddress": "127.0.0.1", "LocalServicePort": 80}
        });
        assert_eq!(hash_of(sidecar), "1912a5b1791c7556");
        let proxy = serde_json::json!({
            "Kind": "connect-proxy", "ID": "p", "Service": "p", "Port": 82,
            "Proxy": {"DestinationServiceName": "web", "DestinationServiceID": "w1",
                "LocalServicePort": 80, "MeshGateway": {"Mode": "remote"},
                "Upstreams": [{"DestinationName": "db", "LocalBindPort": 1, "Config": {"x": 1},
                    "MeshGateway": {"Mode": "local"}}],
                "Expose": {"Checks": true,
                    "Paths": [{"ListenerPort": 1, "Path": "/h", "LocalPathPort": 2}]}}
        });
        assert_eq!(hash_of(proxy), "b2226f9a85b60dea");
    }
}
