//! Records in the responses of `/v1/txn` and `/v1/internal/ui`. They are the same as in the health API,
//! except that empty lists are `null`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::store::{
    CatalogCheckDefinition, Check, CheckStatus, Connect, Proxy, Service, ServiceAddress, Weights,
};

/// An instance.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StoredService<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'a str,
    #[serde(rename = "ID")]
    id: &'a str,
    service: &'a str,
    #[serde(serialize_with = "or_null")]
    tags: &'a [String],
    address: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tagged_addresses: &'a BTreeMap<String, ServiceAddress>,
    meta: &'a Option<BTreeMap<String, String>>,
    port: i64,
    weights: &'a Weights,
    enable_tag_override: bool,
    proxy: &'a Proxy,
    connect: &'a Connect,
    create_index: u64,
    modify_index: u64,
}

/// A check.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StoredCheck<'a> {
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
    #[serde(serialize_with = "or_null")]
    service_tags: &'a [String],
    #[serde(rename = "Type")]
    kind: &'a str,
    definition: CatalogCheckDefinition,
    create_index: u64,
    modify_index: u64,
}

impl<'a> From<&'a Service> for StoredService<'a> {
    fn from(service: &'a Service) -> Self {
        Self {
            kind: &service.kind,
            id: &service.id,
            service: &service.name,
            tags: &service.tags,
            address: &service.address,
            tagged_addresses: &service.tagged_addresses,
            meta: &service.meta,
            port: service.port,
            weights: &service.weights,
            enable_tag_override: service.enable_tag_override,
            proxy: &service.proxy,
            connect: &service.connect,
            create_index: service.create_index,
            modify_index: service.modify_index,
        }
    }
}

impl<'a> From<&'a Check> for StoredCheck<'a> {
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
            service_tags: &check.service_tags,
            kind: &check.kind,
            definition: check.definition.as_deref().cloned().unwrap_or_default(),
            create_index: check.create_index,
            modify_index: check.modify_index,
        }
    }
}

/// Serializes an empty list as `null`.
fn or_null<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    Some(list)
        .filter(|list| !list.is_empty())
        .serialize(serializer)
}
