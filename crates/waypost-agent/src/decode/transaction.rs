//! The body of `/v1/txn`: the operations of a transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::{Error, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::json::{DecodeError, from_slice};
use super::service::WeightsBody;
use crate::go_compat::{nanoseconds, optional_nanoseconds, show_nonzero_duration};
use crate::store::{
    CatalogCheckDefinition, Check, CheckStatus, KvEntry, KvOperation, Node, Operation, Service,
    Weights,
};

/// Reads the body of `/v1/txn`. Empty operations are left out.
pub(crate) fn operations(body: &[u8]) -> Result<Vec<Operation>, DecodeError> {
    let bodies: Vec<OperationBody> = from_slice(body)?;
    let operations = bodies.into_iter().filter_map(OperationBody::into_operation);
    Ok(operations.collect())
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct OperationBody {
    #[serde(rename = "KV")]
    key: Option<KeyOperation>,
    node: Option<NodeOperation>,
    service: Option<ServiceOperation>,
    check: Option<CheckOperation>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct KeyOperation {
    verb: String,
    index: u64,
    key: String,
    #[serde(deserialize_with = "base64")]
    value: Bytes,
    flags: u64,
    session: String,
    #[serde(rename = "Namespace")]
    _namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct NodeOperation {
    verb: String,
    node: NodeBody,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct NodeBody {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    address: String,
    datacenter: String,
    tagged_addresses: Option<BTreeMap<String, String>>,
    meta: Option<BTreeMap<String, String>>,
    modify_index: u64,
    #[serde(rename = "CreateIndex")]
    _create_index: u64,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct ServiceOperation {
    verb: String,
    node: String,
    service: ServiceBody,
}

/// Ignores the same fields as Consul.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct ServiceBody {
    kind: String,
    #[serde(rename = "ID")]
    id: String,
    service: String,
    tags: Vec<String>,
    address: String,
    meta: Option<BTreeMap<String, String>>,
    port: i64,
    weights: Option<WeightsBody>,
    enable_tag_override: bool,
    modify_index: u64,
    #[serde(rename = "TaggedAddresses")]
    _tagged_addresses: IgnoredAny,
    #[serde(rename = "Proxy")]
    _proxy: IgnoredAny,
    #[serde(rename = "Connect")]
    _connect: IgnoredAny,
    #[serde(rename = "CreateIndex")]
    _create_index: IgnoredAny,
    #[serde(rename = "ContentHash")]
    _content_hash: String,
    #[serde(rename = "Namespace")]
    _namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct CheckOperation {
    verb: String,
    check: CheckBody,
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
    definition: DefinitionBody,
    modify_index: u64,
    #[serde(rename = "Type")]
    _kind: String,
    #[serde(rename = "ServiceName")]
    _service_name: String,
    #[serde(rename = "ServiceTags")]
    _service_tags: Vec<String>,
    #[serde(rename = "Namespace")]
    _namespace: String,
    #[serde(rename = "CreateIndex")]
    _create_index: u64,
}

/// Unknown fields are ignored. The names that end in `Duration` take precedence.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DefinitionBody {
    #[serde(deserialize_with = "nanoseconds")]
    interval: i64,
    #[serde(deserialize_with = "optional_nanoseconds")]
    interval_duration: Option<i64>,
    #[serde(deserialize_with = "nanoseconds")]
    timeout: i64,
    #[serde(deserialize_with = "optional_nanoseconds")]
    timeout_duration: Option<i64>,
    #[serde(deserialize_with = "nanoseconds")]
    deregister_critical_service_after: i64,
    #[serde(deserialize_with = "optional_nanoseconds")]
    deregister_critical_service_after_duration: Option<i64>,
    #[serde(rename = "HTTP")]
    http: String,
    #[serde(rename = "TLSSkipVerify")]
    tls_skip_verify: bool,
    header: BTreeMap<String, Vec<String>>,
    method: String,
    body: String,
    #[serde(rename = "TCP")]
    tcp: String,
}

impl OperationBody {
    /// If one object has several operations, the first one in this order is used.
    fn into_operation(self) -> Option<Operation> {
        let key = self.key.map(|body| {
            Operation::Key(KvOperation {
                verb: body.verb,
                index: body.index,
                entry: KvEntry {
                    key: body.key,
                    value: body.value,
                    flags: body.flags,
                    session: body.session,
                    ..KvEntry::default()
                },
            })
        });
        let node = self.node.map(|body| Operation::Node {
            verb: body.verb,
            node: body.node.into(),
        });
        let service = self.service.map(|body| Operation::Service {
            verb: body.verb,
            node: body.node,
            service: body.service.into(),
        });
        let check = self.check.map(|body| Operation::Check {
            verb: body.verb,
            check: body.check.into(),
        });
        key.or(node).or(service).or(check)
    }
}

impl From<NodeBody> for Node {
    fn from(body: NodeBody) -> Self {
        Self {
            id: body.id,
            name: body.node,
            address: body.address,
            datacenter: body.datacenter,
            tagged_addresses: body.tagged_addresses,
            meta: body.meta,
            modify_index: body.modify_index,
            ..Self::default()
        }
    }
}

impl From<ServiceBody> for Service {
    fn from(body: ServiceBody) -> Self {
        let weights = body.weights.map(Weights::from);
        let weights = weights.filter(|weights| weights.validate().is_ok());
        Self {
            kind: body.kind,
            id: body.id,
            name: body.service,
            tags: body.tags,
            address: body.address,
            meta: body.meta,
            port: body.port,
            weights: weights.unwrap_or_default(),
            enable_tag_override: body.enable_tag_override,
            modify_index: body.modify_index,
            ..Self::default()
        }
    }
}

impl From<CheckBody> for Check {
    fn from(body: CheckBody) -> Self {
        let definition = CatalogCheckDefinition::from(body.definition);
        Self {
            node: body.node,
            id: if body.id.is_empty() {
                body.name.clone()
            } else {
                body.id
            },
            name: body.name,
            status: CheckStatus::parse(&body.status).unwrap_or_default(),
            notes: body.notes,
            output: body.output,
            service_id: body.service_id,
            definition: (definition != CatalogCheckDefinition::default())
                .then(|| Box::new(definition)),
            modify_index: body.modify_index,
            ..Self::default()
        }
    }
}

impl From<DefinitionBody> for CatalogCheckDefinition {
    fn from(body: DefinitionBody) -> Self {
        let deregister_after = body
            .deregister_critical_service_after_duration
            .unwrap_or(body.deregister_critical_service_after);
        Self {
            interval: show_nonzero_duration(body.interval_duration.unwrap_or(body.interval)),
            timeout: show_nonzero_duration(body.timeout_duration.unwrap_or(body.timeout)),
            deregister_critical_service_after: show_nonzero_duration(deregister_after),
            http: body.http,
            tls_skip_verify: body.tls_skip_verify,
            header: body.header,
            method: body.method,
            body: body.body,
            tcp: body.tcp,
            ..Self::default()
        }
    }
}

/// Reads Base64. Line breaks are ignored, since some clients break long lines.
fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?.replace(['\r', '\n'], "");
    let decoded = data_encoding::BASE64.decode(text.as_bytes());
    decoded.map(Bytes::from).map_err(Error::custom)
}
