//! The bodies of `/v1/catalog/register` and `/v1/catalog/deregister`.

use super::service::{decode_connect, decode_weights, fault_of_meta};
use super::{Fault, Fields, Json};
use crate::go;
use crate::store::{CatalogEntry, Check, Definition, Node, Service, Status, WHEREVER};

/// The datacenter that is meant, and what is to be there.
#[derive(Debug, Default)]
pub(crate) struct CatalogRegistration {
    pub datacenter: String,
    pub entry: CatalogEntry,
}

/// What is to go: a service, a check, or if neither is named the whole node.
#[derive(Debug, Default)]
pub(crate) struct CatalogDeregistration {
    pub datacenter: String,
    pub node: String,
    pub service_id: String,
    pub check_id: String,
}

const DEFINITION: &str = "struct { Interval interface {}; Timeout interface {}; \
    DeregisterCriticalServiceAfter interface {}; TTL interface {}; *structs.Alias }";

impl CatalogRegistration {
    pub(crate) fn decode(json: Json<'_>) -> Result<Self, Fault> {
        let context = "RegisterRequest";
        let mut fields = Fields::of(json, context, "structs.RegisterRequest")?;
        let node = Node {
            id: fields.take_with(&["ID"], |json| text_as(json, "types.NodeID")),
            name: fields.take("Node"),
            address: fields.take("Address"),
            tagged_addresses: fields.take_any(&["TaggedAddresses"]),
            meta: fields.take_any(&["NodeMeta"]),
            ..Node::default()
        };
        let datacenter = fields.take("Datacenter");
        let skip_node_update = fields.take("SkipNodeUpdate");
        let service = fields.take_with(&["Service"], |json| decode_service(json).map(Some));
        let first = fields.take_with(&["Check"], |json| {
            decode_check(json, "HealthCheck.Check").map(Some)
        });
        let mut checks = fields.take_with(&["Checks"], decode_checks);
        fields.finish()?;
        checks.extend(first);
        Ok(Self {
            datacenter,
            entry: CatalogEntry {
                node,
                skip_node_update,
                service,
                checks,
            },
        })
    }

    /// What is wrong with it, in Consul's words; fills in what may be left out.
    pub(crate) fn complete(&mut self) -> Result<(), String> {
        let entry = &mut self.entry;
        if entry.node.name.is_empty() {
            return Err("Must provide node".to_owned());
        }
        if entry.node.address.is_empty() && !entry.skip_node_update {
            return Err("Must provide address if SkipNodeUpdate is not set".to_owned());
        }
        if let Some(fault) = fault_of_uuid(&entry.node.id) {
            return Err(format!("Bad node ID: {fault}"));
        }
        if let Some(service) = &mut entry.service {
            if service.id.is_empty() {
                service.id.clone_from(&service.name);
            } else if service.name.is_empty() {
                return Err("Must provide service name with ID".to_owned());
            }
            if WHEREVER.contains(&service.address.as_str()) {
                return Err("Invalid service address".to_owned());
            }
            if let Some(fault) = service.meta.as_ref().and_then(fault_of_meta) {
                return Err(format!(
                    "failed inserting service: Invalid Service Meta for node {} and serviceID {}: \
                     {fault}",
                    entry.node.name, service.id
                ));
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

impl CatalogDeregistration {
    pub(crate) fn decode(json: Json<'_>) -> Result<Self, Fault> {
        let mut fields = Fields::of(json, "", "struct { Address string; *structs.Alias }")?;
        let _address: String = fields.take("Address");
        let deregistration = Self {
            datacenter: fields.take("Datacenter"),
            node: fields.take("Node"),
            service_id: fields.take("ServiceID"),
            check_id: fields.take_with(&["CheckID"], |json| text_as(json, "types.CheckID")),
        };
        fields.finish()?;
        Ok(deregistration)
    }
}

fn decode_service(json: Json<'_>) -> Result<Service, Fault> {
    let mut fields = Fields::of(json, "NodeService.Service", "structs.NodeService")?;
    let mut service = Service {
        kind: fields.take_with(&["Kind"], |json| text_as(json, "structs.ServiceKind")),
        id: fields.take("ID"),
        name: fields.take("Service"),
        tags: fields.take("Tags"),
        address: fields.take("Address"),
        tagged_addresses: fields.take("TaggedAddresses"),
        meta: fields.take_any(&["Meta"]),
        port: fields.take("Port"),
        enable_tag_override: fields.take("EnableTagOverride"),
        ..Service::default()
    };
    let weights = fields.take_with(&["Weights"], |json| {
        decode_weights(json, "Weights.Service.Weights", "structs.Weights").map(Some)
    });
    (service.connect, _) = fields.take_opaque(&["Connect"], decode_connect);
    // Known, and without a meaning here.
    for name in ["Proxy", "CreateIndex", "ModifyIndex"] {
        fields.take_with(&[name], |_| Ok(()));
    }
    fields.finish()?;
    if let Some(weights) = weights {
        service.weights = weights;
    }
    Ok(service)
}

fn decode_checks(json: Json<'_>) -> Result<Vec<Check>, Fault> {
    match json {
        Json::Array(items) => items
            .into_iter()
            .filter(|item| *item != Json::Null)
            .map(|item| decode_check(item, "HealthCheck.Checks"))
            .collect(),
        other => Err(Fault::mismatch(&other, "structs.HealthChecks")),
    }
}

fn decode_check(json: Json<'_>, context: &'static str) -> Result<Check, Fault> {
    let mut fields = Fields::of(json, context, "structs.HealthCheck")?;
    let mut check = Check {
        node: fields.take("Node"),
        id: fields.take_with(&["CheckID"], |json| text_as(json, "types.CheckID")),
        name: fields.take("Name"),
        notes: fields.take("Notes"),
        output: fields.take("Output"),
        service_id: fields.take("ServiceID"),
        service_name: fields.take("ServiceName"),
        service_tags: fields.take("ServiceTags"),
        kind: fields.take("Type"),
        ..Check::default()
    };
    let status: String = fields.take("Status");
    let definition = fields.take_opaque(&["Definition"], |json| decode_definition(json).map(Some));
    for name in ["CreateIndex", "ModifyIndex"] {
        fields.take_with(&[name], |_| Ok(()));
    }
    fields.finish()?;
    check.status = Status::parse(&status).unwrap_or_default();
    if let Some(definition) = definition {
        if check.kind.is_empty() {
            definition.kind().clone_into(&mut check.kind);
        }
        check.definition = (definition != Definition::default()).then(|| Box::new(definition));
    }
    Ok(check)
}

fn decode_definition(json: Json<'_>) -> Result<Definition, Fault> {
    let mut fields = Fields::of(json, "", DEFINITION)?;
    let mut duration = |name| shown_duration(&mut fields, &[name]);
    let [interval, timeout, deregister_critical_service_after] =
        ["Interval", "Timeout", "DeregisterCriticalServiceAfter"].map(&mut duration);
    let ttl: Option<Json<'_>> = fields.take_with(&["TTL"], |json| Ok(Some(json)));
    let definition = Definition {
        interval: interval?,
        timeout: timeout?,
        deregister_critical_service_after: deregister_critical_service_after?,
        ttl: super::check::nanoseconds(ttl)?,
        output_max_size: fields.take("OutputMaxSize"),
        http: fields.take("HTTP"),
        tls_skip_verify: fields.take("TLSSkipVerify"),
        header: fields.take("Header"),
        method: fields.take("Method"),
        body: fields.take("Body"),
        tcp: fields.take("TCP"),
        script_args: fields.take("ScriptArgs"),
        docker_container_id: fields.take("DockerContainerID"),
        shell: fields.take("Shell"),
        grpc: fields.take("GRPC"),
        grpc_use_tls: fields.take("GRPCUseTLS"),
        alias_node: fields.take("AliasNode"),
        alias_service: fields.take("AliasService"),
    };
    fields.finish_leniently()?;
    Ok(definition)
}

/// Takes a duration, as it is shown; 0 isn't.
pub(super) fn shown_duration(fields: &mut Fields<'_>, names: &[&str]) -> Result<String, Fault> {
    let json: Option<Json<'_>> = fields.take_with(names, |json| Ok(Some(json)));
    Ok(match super::check::nanoseconds(json)? {
        0 => String::new(),
        nanoseconds => go::show_duration(nanoseconds),
    })
}

impl Definition {
    /// The type of a check that has this definition and says nothing else.
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

/// A text that Go has a type of its own for.
pub(super) fn text_as(json: Json<'_>, go_type: &'static str) -> Result<String, Fault> {
    match json {
        Json::String(text) => Ok(text.into_owned()),
        other => Err(Fault::mismatch(&other, go_type)),
    }
}

/// What is wrong with the id of a node, in Consul's words.
pub(crate) fn fault_of_uuid(text: &str) -> Option<String> {
    const LENGTH: usize = 36;
    if text.is_empty() {
        return None;
    }
    if text.len() != LENGTH {
        return Some("uuid string is wrong length".to_owned());
    }
    let hyphens = [8, 13, 18, 23];
    if !hyphens.iter().all(|at| text.as_bytes()[*at] == b'-') {
        return Some("uuid is improperly formatted".to_owned());
    }
    let digits = text.chars().filter(|c| *c != '-');
    let wrong = digits.into_iter().find(|c| !c.is_ascii_hexdigit())?;
    let code = u32::from(wrong);
    Some(format!(
        "encoding/hex: invalid byte: U+{code:04X} '{wrong}'"
    ))
}
