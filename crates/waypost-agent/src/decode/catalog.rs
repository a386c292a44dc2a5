//! The bodies of `/v1/catalog/register` and `/v1/catalog/deregister`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::service::{ConnectBody, WeightsBody};
use crate::store::{
    CatalogCheckDefinition, CatalogEntry, Check, CheckStatus, Node, Service, ServiceAddress,
    UNSPECIFIED_ADDRESSES,
};
use crate::{ids, metadata};

/// What to register in the catalog of a datacenter.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "RegistrationBody")]
pub(crate) struct CatalogRegistration {
    pub datacenter: String,
    pub entry: CatalogEntry,
}

/// What to remove: a service, a check, or the whole node if neither is set.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct CatalogDeregistration {
    pub datacenter: String,
    pub node: String,
    #[serde(rename = "ServiceID")]
    pub service_id: String,
    #[serde(rename = "CheckID")]
    pub check_id: String,
    /// Accepted, and not used.
    #[serde(rename = "Address")]
    _address: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct RegistrationBody {
    datacenter: String,
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    tagged_addresses: Option<BTreeMap<String, String>>,
    node_meta: Option<BTreeMap<String, String>>,
    skip_node_update: bool,
    service: Option<ServiceBody>,
    check: Option<CheckBody>,
    checks: Vec<Option<CheckBody>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct ServiceBody {
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    service: String,
    tags: Vec<String>,
    address: String,
    tagged_addresses: BTreeMap<String, ServiceAddress>,
    meta: Option<BTreeMap<String, String>>,
    port: i64,
    weights: Option<WeightsBody>,
    enable_tag_override: bool,
    connect: ConnectBody,
    #[serde(rename = "Proxy")]
    _proxy: IgnoredAny,
    #[serde(rename = "CreateIndex")]
    _create_index: IgnoredAny,
    #[serde(rename = "ModifyIndex")]
    _modify_index: IgnoredAny,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct CheckBody {
    node: String,
    #[serde(rename = "CheckID")]
    id: String,
    name: String,
    status: String,
    notes: String,
    output: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    service_name: String,
    service_tags: Vec<String>,
    #[serde(rename = "Type")]
    kind: String,
    definition: CatalogCheckDefinition,
    #[serde(rename = "CreateIndex")]
    _create_index: IgnoredAny,
    #[serde(rename = "ModifyIndex")]
    _modify_index: IgnoredAny,
}

impl From<RegistrationBody> for CatalogRegistration {
    fn from(body: RegistrationBody) -> Self {
        let checks = body.checks.into_iter().flatten().chain(body.check);
        Self {
            datacenter: body.datacenter,
            entry: CatalogEntry {
                node: Node {
                    id: body.id,
                    name: body.node,
                    address: body.address,
                    tagged_addresses: body.tagged_addresses,
                    meta: body.node_meta,
                    ..Node::default()
                },
                skip_node_update: body.skip_node_update,
                service: body.service.map(Service::from),
                checks: checks.map(Check::from).collect(),
            },
        }
    }
}

impl From<ServiceBody> for Service {
    fn from(body: ServiceBody) -> Self {
        Self {
            kind: body.kind,
            id: body.id,
            name: body.service,
            tags: body.tags,
            address: body.address,
            tagged_addresses: body.tagged_addresses,
            meta: body.meta,
            port: body.port,
            weights: body.weights.map(Into::into).unwrap_or_default(),
            enable_tag_override: body.enable_tag_override,
            connect: body.connect.into(),
            ..Self::default()
        }
    }
}

impl From<CheckBody> for Check {
    fn from(body: CheckBody) -> Self {
        let definition = body.definition;
        let kind = if body.kind.is_empty() {
            definition.kind().to_owned()
        } else {
            body.kind
        };
        Self {
            node: body.node,
            id: body.id,
            name: body.name,
            status: CheckStatus::parse(&body.status).unwrap_or_default(),
            notes: body.notes,
            output: body.output,
            service_id: body.service_id,
            service_name: body.service_name,
            service_tags: body.service_tags,
            kind,
            definition: (definition != CatalogCheckDefinition::default())
                .then(|| Box::new(definition)),
            ..Self::default()
        }
    }
}

impl CatalogRegistration {
    /// Validates the registration and fills in the defaults. The error is Consul's.
    pub(crate) fn complete(&mut self) -> Result<(), String> {
        let entry = &mut self.entry;
        if entry.node.name.is_empty() {
            return Err("Must provide node".to_owned());
        }
        if entry.node.address.is_empty() && !entry.skip_node_update {
            return Err("Must provide address if SkipNodeUpdate is not set".to_owned());
        }
        ids::check_node_id(&entry.node.id).map_err(|error| format!("Bad node ID: {error}"))?;
        if let Some(service) = &mut entry.service {
            if service.id.is_empty() {
                service.id.clone_from(&service.name);
            } else if service.name.is_empty() {
                return Err("Must provide service name with ID".to_owned());
            }
            if UNSPECIFIED_ADDRESSES.contains(&service.address.as_str()) {
                return Err("Invalid service address".to_owned());
            }
            if let Some(meta) = &service.meta {
                metadata::validate(meta).map_err(|error| {
                    format!(
                        "failed inserting service: Invalid Service Meta for node {} and serviceID \
                         {}: {error}",
                        entry.node.name, service.id
                    )
                })?;
            }
        }
        for check in &mut entry.checks {
            if check.id.is_empty() {
                check.id.clone_from(&check.name);
            }
            if check.node.is_empty() {
                check.node.clone_from(&entry.node.name);
            }
        }
        Ok(())
    }
}

impl CatalogCheckDefinition {
    /// The type of a check that has this definition but no `Type`.
    fn kind(&self) -> &'static str {
        if !self.grpc.is_empty() {
            "grpc"
        } else if !self.http.is_empty() {
            "http"
        } else if self.ttl > 0 {
            "ttl"
        } else if !self.tcp.is_empty() {
            "tcp"
        } else if !self.alias_node.is_empty() || !self.alias_service.is_empty() {
            "alias"
        } else if !self.docker_container_id.is_empty() {
            "docker"
        } else if !self.script_args.is_empty() {
            "script"
        } else {
            ""
        }
    }
}
