//! Operations on nodes, services and checks.

use std::sync::Arc;

use super::super::UNSPECIFIED_ADDRESSES;
use super::super::catalog::Catalog;
use super::super::changes::Changes;
use super::super::model::{Check, Node, Service};
use crate::{ids, metadata};

const MISSING_NODE: &str = "Missing node registration";

pub(super) fn validate_node(node: &Node) -> Result<(), String> {
    if node.name.is_empty() {
        return Err("Must provide node".to_owned());
    }
    ids::check_node_id(&node.id).map_err(|error| format!("Bad node ID: {error}"))
}

pub(super) fn validate_service(service: &Service) -> Result<(), String> {
    if service.name.is_empty() && !service.id.is_empty() {
        return Err("Must provide service name with ID".to_owned());
    }
    if UNSPECIFIED_ADDRESSES.contains(&service.address.as_str()) {
        return Err("Invalid service address".to_owned());
    }
    Ok(())
}

/// Returns the node as it is afterwards, or `None` if it was deleted.
pub(super) fn apply_node(
    catalog: &mut Catalog,
    verb: &str,
    node: Node,
    changes: &mut Changes,
) -> Result<Option<Arc<Node>>, String> {
    let (id, name) = (node.id.clone(), node.name.clone());
    let current = catalog.find_node("", &name).map(|node| node.modify_index);
    match verb {
        "get" => {
            let found = catalog.find_node(&id, &name).cloned();
            return found
                .map(Some)
                .ok_or_else(|| format!("node {name:?} doesn't exist"));
        }
        "set" => catalog.put_node_by_id(node, changes),
        "cas" if matches_index(current, node.modify_index) => {
            catalog.put_node_by_id(node, changes);
        }
        "cas" => return Err(format!("failed to set node {name:?}, index is stale")),
        "delete-cas" if current != Some(node.modify_index) => {
            return Err(format!("failed to delete node {name:?}, index is stale"));
        }
        "delete" | "delete-cas" => {
            catalog.remove_node(&name, changes);
            return Ok(None);
        }
        other => return Err(format!("unknown Node verb {other:?}")),
    }
    Ok(catalog.find_node(&id, &name).cloned())
}

/// Returns the instance as it is afterwards, or `None` if it was deleted.
pub(super) fn apply_service(
    catalog: &mut Catalog,
    verb: &str,
    node: &str,
    mut service: Service,
    changes: &mut Changes,
) -> Result<Option<Arc<Service>>, String> {
    if service.id.is_empty() && verb != "get" {
        service.id.clone_from(&service.name);
    }
    let id = service.id.clone();
    let what = || format!("service {id:?} on node {node:?}");
    let old = catalog.service_on(node, &id).cloned();
    let current = old.as_ref().map(|old| old.modify_index);
    match verb {
        "get" => {
            return old
                .map(Some)
                .ok_or_else(|| format!("{} doesn't exist", what()));
        }
        "cas" if !matches_index(current, service.modify_index) => {
            return Err(format!("failed to set {}, index is stale", what()));
        }
        "set" | "cas" if !catalog.has_node(node) => return Err(MISSING_NODE.to_owned()),
        "set" | "cas" => {
            if let Some(meta) = &service.meta {
                metadata::validate(meta).map_err(|error| {
                    format!("Invalid Service Meta for node {node} and serviceID {id}: {error}")
                })?;
            }
            catalog.put_service(node, service, changes);
        }
        "delete-cas" if current != Some(service.modify_index) => {
            return Err(format!("failed to delete {}, index is stale", what()));
        }
        "delete" | "delete-cas" => {
            catalog.remove_service(node, &id, changes);
            return Ok(None);
        }
        other => return Err(format!("unknown Service verb {other:?}")),
    }
    Ok(catalog.service_on(node, &id).cloned())
}

/// Returns the check as it is afterwards, or `None` if it was deleted.
pub(super) fn apply_check(
    catalog: &mut Catalog,
    verb: &str,
    check: Check,
    changes: &mut Changes,
) -> Result<Option<Arc<Check>>, String> {
    let (node, id) = (check.node.clone(), check.id.clone());
    let what = || format!("check {id:?} on node {node:?}");
    let old = catalog.check_on(&node, &id).cloned();
    let current = old.as_ref().map(|old| old.modify_index);
    match verb {
        "get" => {
            return old
                .map(Some)
                .ok_or_else(|| format!("{} doesn't exist", what()));
        }
        "set" => put_check(catalog, check, changes)?,
        "cas" if matches_index(current, check.modify_index) => {
            // Consul ignores this error and continues.
            let _ = put_check(catalog, check, changes);
        }
        "cas" => return Err(format!("failed to set {}, index is stale", what())),
        "delete-cas" if current != Some(check.modify_index) => {
            return Err(format!("failed to delete {}, index is stale", what()));
        }
        "delete" | "delete-cas" => {
            catalog.remove_check(&node, &id, changes);
            return Ok(None);
        }
        other => return Err(format!("unknown Check verb {other:?}")),
    }
    Ok(catalog.check_on(&node, &id).cloned())
}

fn put_check(catalog: &mut Catalog, mut check: Check, changes: &mut Changes) -> Result<(), String> {
    if !catalog.has_node(&check.node) {
        return Err(MISSING_NODE.to_owned());
    }
    if check.id.is_empty() {
        return Err("failed inserting check: object missing primary index".to_owned());
    }
    if !check.service_id.is_empty() {
        let service = catalog.service_on(&check.node, &check.service_id);
        let service = service.ok_or("Missing service registration")?;
        check.service_name.clone_from(&service.name);
        check.service_tags.clone_from(&service.tags);
    }
    catalog.put_check(check, changes);
    Ok(())
}

/// Whether a row has the expected index, where 0 stands for a missing row.
fn matches_index(current: Option<u64>, expected: u64) -> bool {
    current.unwrap_or(0) == expected
}
