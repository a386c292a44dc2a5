//! The JSON of records in responses, where it differs from that of the records of [`crate::store`].
//! The fields are in Consul's order.

mod content_hash;
mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::store::{
    Check, CheckStatus, Connect, Instance, Node, Proxy, Service, ServiceAddress, Weights,
};

pub(crate) use stored::{StoredCheck, StoredService};

type Strings = BTreeMap<String, String>;
type Addresses = BTreeMap<String, ServiceAddress>;

static NO_STRINGS: Strings = Strings::new();

/// An instance in `/v1/agent/services`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AgentService<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    tags: &'a [String],
    meta: &'a Strings,
    port: i64,
    address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: &'a Addresses,
    weights: &'a Weights,
    enable_tag_override: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_hash: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<&'a Connect>,
}

/// An instance in `/v1/catalog/service/:name`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CatalogService<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: &'a Option<Strings>,
    node_meta: &'a Option<Strings>,
    service_kind: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    service_address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_tagged_addresses: &'a Addresses,
    service_weights: &'a Weights,
    service_meta: &'a Strings,
    service_port: i64,
    service_enable_tag_override: bool,
    service_proxy: &'a Proxy,
    service_connect: &'a Connect,
    create_index: u64,
    modify_index: u64,
}

/// An instance in `/v1/health/service/:name`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthService<'a> {
    node: &'a Node,
    service: &'a Service,
    checks: &'a [Arc<Check>],
}

/// A node and its services by id, in `/v1/catalog/node/:node`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeServices<N, S> {
    pub node: N,
    pub services: S,
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

/// A list of pairs, serialised as an object in the list's order.
pub(crate) struct Pairs<K, V>(pub Vec<(K, V)>);

impl<'a> From<&'a Service> for AgentService<'a> {
    fn from(service: &'a Service) -> Self {
        Self {
            kind: &service.kind,
            id: &service.id,
            service: &service.name,
            tags: &service.tags,
            meta: service.meta.as_ref().unwrap_or(&NO_STRINGS),
            port: service.port,
            address: &service.address,
            tagged_addresses: &service.tagged_addresses,
            weights: &service.weights,
            enable_tag_override: service.enable_tag_override,
            content_hash: None,
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
}

impl<'a> From<&'a Instance> for CatalogService<'a> {
    fn from(Instance { node, service, .. }: &'a Instance) -> Self {
        Self {
            id: &node.id,
            node: &node.name,
            address: &node.address,
            datacenter: &node.datacenter,
            tagged_addresses: &node.tagged_addresses,
            node_meta: &node.meta,
            service_kind: &service.kind,
            service_id: &service.id,
            service_name: &service.name,
            service_tags: &service.tags,
            service_address: &service.address,
            service_tagged_addresses: &service.tagged_addresses,
            service_weights: &service.weights,
            service_meta: service.meta.as_ref().unwrap_or(&NO_STRINGS),
            service_port: service.port,
            service_enable_tag_override: service.enable_tag_override,
            service_proxy: &service.proxy,
            service_connect: &service.connect,
            create_index: service.create_index,
            modify_index: service.modify_index,
        }
    }
}

impl<'a> From<&'a Instance> for HealthService<'a> {
    fn from(instance: &'a Instance) -> Self {
        Self {
            node: &instance.node,
            service: &instance.service,
            checks: &instance.checks,
        }
    }
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

impl<K: Serialize, V: Serialize> Serialize for Pairs<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
