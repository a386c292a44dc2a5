//! Records in the responses of `/v1/catalog` and `/v1/health`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use crate::store::{Check, Connect, Instance, Node, Proxy, Service, ServiceAddress, Weights};

static EMPTY_META: BTreeMap<String, String> = BTreeMap::new();

/// An instance in `/v1/catalog/service/:name`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CatalogService<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: &'a str,
    datacenter: &'a str,
    tagged_addresses: &'a Option<BTreeMap<String, String>>,
    node_meta: &'a Option<BTreeMap<String, String>>,
    service_kind: &'a str,
    #[serde(rename = "ServiceID")]
    service_id: &'a str,
    service_name: &'a str,
    service_tags: &'a [String],
    service_address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_tagged_addresses: &'a BTreeMap<String, ServiceAddress>,
    service_weights: &'a Weights,
    service_meta: &'a BTreeMap<String, String>,
    service_port: i64,
    service_enable_tag_override: bool,
    service_proxy: &'a Proxy,
    service_connect: &'a Connect,
    create_index: u64,
    modify_index: u64,
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
            service_meta: service.meta.as_ref().unwrap_or(&EMPTY_META),
            service_port: service.port,
            service_enable_tag_override: service.enable_tag_override,
            service_proxy: &service.proxy,
            service_connect: &service.connect,
            create_index: service.create_index,
            modify_index: service.modify_index,
        }
    }
}

/// An instance in `/v1/health/service/:name`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HealthService<'a> {
    node: &'a Node,
    service: &'a Service,
    checks: &'a [Arc<Check>],
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

/// A node and its services by id, in `/v1/catalog/node/:node`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NodeServices<N, S> {
    pub node: N,
    pub services: S,
}
