//! The operations of a transaction.

use bytes::Bytes;

use super::catalog::{shown_duration, text_as};
use super::service::{decode_weights, fault_of_weights};
use super::{Fault, Fields, Json};
use crate::store::{Check, Definition, Entry, KvOperation, Node, Operation, Service, Status};

/// What Go calls the definition of a check.
const DEFINITION: &str = "struct { IntervalDuration interface {}; TimeoutDuration interface {}; \
    DeregisterCriticalServiceAfterDuration interface {}; *api.Alias }";

/// Reads the body of `/v1/txn`. Operations on nothing are left out.
pub(crate) fn operations(json: Json<'_>) -> Result<Vec<Operation>, Fault> {
    let items = match json {
        Json::Array(items) => items,
        Json::Null => Vec::new(),
        other => return Err(Fault::mismatch(&other, "api.TxnOps")),
    };
    let operations = items.into_iter().map(operation);
    Ok(operations
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// Of several in one object the first counts, in this order.
fn operation(json: Json<'_>) -> Result<Option<Operation>, Fault> {
    let mut fields = Fields::of(json, "TxnOp", "api.TxnOp")?;
    let key = fields.take_with(&["KV"], |json| on_key(json).map(Some));
    let node = fields.take_with(&["Node"], |json| on_node(json).map(Some));
    let service = fields.take_with(&["Service"], |json| on_service(json).map(Some));
    let check = fields.take_with(&["Check"], |json| on_check(json).map(Some));
    fields.finish()?;
    Ok(key.or(node).or(service).or(check))
}

fn on_key(json: Json<'_>) -> Result<Operation, Fault> {
    let mut fields = Fields::of(json, "KVTxnOp.KV", "api.KVTxnOp")?;
    let operation = KvOperation {
        verb: fields.take("Verb"),
        index: fields.take("Index"),
        entry: Entry {
            key: fields.take("Key"),
            value: fields.take_with(&["Value"], bytes),
            flags: fields.take("Flags"),
            session: fields.take("Session"),
            ..Entry::default()
        },
    };
    fields.take::<String>("Namespace");
    fields.finish()?;
    Ok(Operation::Key(operation))
}

fn on_node(json: Json<'_>) -> Result<Operation, Fault> {
    let mut fields = Fields::of(json, "NodeTxnOp.Node", "api.NodeTxnOp")?;
    let operation = Operation::Node {
        verb: fields.take_with(&["Verb"], |json| text_as(json, "api.NodeOp")),
        node: fields.take_with(&["Node"], decode_node),
    };
    fields.finish()?;
    Ok(operation)
}

fn on_service(json: Json<'_>) -> Result<Operation, Fault> {
    let mut fields = Fields::of(json, "ServiceTxnOp.Service", "api.ServiceTxnOp")?;
    let operation = Operation::Service {
        verb: fields.take_with(&["Verb"], |json| text_as(json, "api.ServiceOp")),
        node: fields.take("Node"),
        service: fields.take_with(&["Service"], decode_service),
    };
    fields.finish()?;
    Ok(operation)
}

fn on_check(json: Json<'_>) -> Result<Operation, Fault> {
    let mut fields = Fields::of(json, "CheckTxnOp.Check", "api.CheckTxnOp")?;
    let operation = Operation::Check {
        verb: fields.take_with(&["Verb"], |json| text_as(json, "api.CheckOp")),
        check: fields.take_with(&["Check"], decode_check),
    };
    fields.finish()?;
    Ok(operation)
}

fn decode_node(json: Json<'_>) -> Result<Node, Fault> {
    let mut fields = Fields::of(json, "Node.Node.Node", "api.Node")?;
    let node = Node {
        id: fields.take("ID"),
        name: fields.take("Node"),
        address: fields.take("Address"),
        datacenter: fields.take("Datacenter"),
        tagged_addresses: fields.take_any(&["TaggedAddresses"]),
        meta: fields.take_any(&["Meta"]),
        modify_index: fields.take("ModifyIndex"),
        ..Node::default()
    };
    fields.take::<u64>("CreateIndex");
    fields.finish()?;
    Ok(node)
}

/// What isn't kept of the instance isn't kept by Consul either.
fn decode_service(json: Json<'_>) -> Result<Service, Fault> {
    let mut fields = Fields::of(json, "AgentService.Service.Service", "api.AgentService")?;
    let mut service = Service {
        kind: fields.take_with(&["Kind"], |json| text_as(json, "api.ServiceKind")),
        id: fields.take("ID"),
        name: fields.take("Service"),
        tags: fields.take("Tags"),
        address: fields.take("Address"),
        meta: fields.take_any(&["Meta"]),
        port: fields.take("Port"),
        enable_tag_override: fields.take("EnableTagOverride"),
        modify_index: fields.take("ModifyIndex"),
        ..Service::default()
    };
    let weights = fields.take_with(&["Weights"], |json| {
        let context = "AgentWeights.Service.Service.Weights";
        decode_weights(json, context, "api.AgentWeights").map(Some)
    });
    for known in ["TaggedAddresses", "Proxy", "Connect", "CreateIndex"] {
        fields.take_with(&[known], |_| Ok(()));
    }
    for known in ["ContentHash", "Namespace"] {
        fields.take::<String>(known);
    }
    fields.finish()?;
    service.weights = weights
        .filter(|weights| fault_of_weights(weights).is_none())
        .unwrap_or_default();
    Ok(service)
}

/// Nor is all of a check.
fn decode_check(json: Json<'_>) -> Result<Check, Fault> {
    let mut fields = Fields::of(json, "HealthCheck.Check.Check", "api.HealthCheck")?;
    let mut check = Check {
        node: fields.take("Node"),
        id: fields.take("CheckID"),
        name: fields.take("Name"),
        notes: fields.take("Notes"),
        output: fields.take("Output"),
        service_id: fields.take("ServiceID"),
        modify_index: fields.take("ModifyIndex"),
        ..Check::default()
    };
    let status: String = fields.take("Status");
    let definition = fields.take_with(&["Definition"], decode_definition);
    for known in ["Type", "ServiceName", "Namespace"] {
        fields.take::<String>(known);
    }
    fields.take::<Vec<String>>("ServiceTags");
    fields.take::<u64>("CreateIndex");
    fields.finish()?;
    if check.id.is_empty() {
        check.id.clone_from(&check.name);
    }
    check.status = Status::parse(&status).unwrap_or_default();
    check.definition = (definition != Definition::default()).then(|| Box::new(definition));
    Ok(check)
}

fn decode_definition(json: Json<'_>) -> Result<Definition, Fault> {
    let mut fields = Fields::of(json, "", DEFINITION)?;
    let mut duration = |names: &[&str]| shown_duration(&mut fields, names);
    let definition = Definition {
        interval: duration(&["Interval", "IntervalDuration"])?,
        timeout: duration(&["Timeout", "TimeoutDuration"])?,
        deregister_critical_service_after: duration(&[
            "DeregisterCriticalServiceAfter",
            "DeregisterCriticalServiceAfterDuration",
        ])?,
        http: fields.take("HTTP"),
        tls_skip_verify: fields.take("TLSSkipVerify"),
        header: fields.take("Header"),
        method: fields.take("Method"),
        body: fields.take("Body"),
        tcp: fields.take("TCP"),
        ..Definition::default()
    };
    fields.finish_leniently()?;
    Ok(definition)
}

fn bytes(json: Json<'_>) -> Result<Bytes, Fault> {
    let Json::String(text) = json else {
        return Err(Fault::mismatch(&json, "[]uint8"));
    };
    // Some clients break long lines.
    let unbroken = text.replace(['\r', '\n'], "");
    let decoded = data_encoding::BASE64.decode(unbroken.as_bytes());
    decoded.map(Bytes::from).map_err(|error| {
        let foreign = |c: char| !c.is_ascii_alphanumeric() && !"+/=\r\n".contains(c);
        let at = text.find(foreign).unwrap_or(error.position);
        Fault::Words(format!("illegal base64 data at input byte {at}"))
    })
}
