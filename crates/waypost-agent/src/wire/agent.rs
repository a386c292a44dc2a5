//! Records in the responses of `/v1/agent`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::hashstructure::{ABSENT, bool, int, list, pairs, structure, text};
use crate::store::{Check, CheckStatus, Connect, Service, ServiceAddress, Weights};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<&'a Connect>,
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
            ("Proxy", ABSENT),
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
