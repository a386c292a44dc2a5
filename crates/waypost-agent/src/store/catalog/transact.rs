//! What transactions do to the catalog, one row at a time. The errors are Consul's.

use std::sync::Arc;

use super::super::model::{Check, Node, Service};
use super::super::{Changes, fold};
use super::Catalog;
use crate::decode::fault_of_meta;

const NO_NODE: &str = "Missing node registration";

impl Catalog {
    /// Returns the node as it is afterwards, if it still is.
    pub(crate) fn transact_node(
        &mut self,
        verb: &str,
        node: Node,
        changes: &mut Changes,
    ) -> Result<Option<Arc<Node>>, String> {
        let (id, name) = (node.id.clone(), node.name.clone());
        let index = self
            .nodes
            .get(&fold(&name))
            .map(|row| row.node.modify_index);
        match verb {
            "get" => {
                let found = self.node_called(&id, &name);
                return found
                    .map(Some)
                    .ok_or_else(|| format!("node {name:?} doesn't exist"));
            }
            "set" => self.put_node_by_id(node, changes),
            "cas" if is_expected(index, node.modify_index) => self.put_node_by_id(node, changes),
            "cas" => return Err(format!("failed to set node {name:?}, index is stale")),
            "delete-cas" if index != Some(node.modify_index) => {
                return Err(format!("failed to delete node {name:?}, index is stale"));
            }
            "delete" | "delete-cas" => {
                self.remove_node(&name, changes);
                return Ok(None);
            }
            other => return Err(format!("unknown Node verb {other:?}")),
        }
        Ok(self.node_called(&id, &name))
    }

    /// Returns the instance as it is afterwards, if it still is.
    pub(crate) fn transact_service(
        &mut self,
        verb: &str,
        node: &str,
        mut service: Service,
        changes: &mut Changes,
    ) -> Result<Option<Arc<Service>>, String> {
        if service.id.is_empty() && verb != "get" {
            service.id.clone_from(&service.name);
        }
        let id = service.id.clone();
        let on_node = || format!("service {id:?} on node {node:?}");
        let old = self.service_on(node, &id);
        let index = old.as_ref().map(|old| old.modify_index);
        match verb {
            "get" => {
                return old
                    .map(Some)
                    .ok_or_else(|| format!("{} doesn't exist", on_node()));
            }
            "cas" if !is_expected(index, service.modify_index) => {
                return Err(format!("failed to set {}, index is stale", on_node()));
            }
            "set" | "cas" if !self.has_node(node) => return Err(NO_NODE.to_owned()),
            "set" | "cas" => {
                if let Some(fault) = service.meta.as_ref().and_then(fault_of_meta) {
                    return Err(format!(
                        "Invalid Service Meta for node {node} and serviceID {id}: {fault}"
                    ));
                }
                self.put_service(node, service, changes);
            }
            "delete-cas" if index != Some(service.modify_index) => {
                return Err(format!("failed to delete {}, index is stale", on_node()));
            }
            "delete" | "delete-cas" => {
                self.remove_service(node, &id, changes);
                return Ok(None);
            }
            other => return Err(format!("unknown Service verb {other:?}")),
        }
        Ok(self.service_on(node, &id))
    }

    /// Returns the check as it is afterwards, if it still is.
    pub(crate) fn transact_check(
        &mut self,
        verb: &str,
        check: Check,
        changes: &mut Changes,
    ) -> Result<Option<Arc<Check>>, String> {
        let (node, id) = (check.node.clone(), check.id.clone());
        let on_node = || format!("check {id:?} on node {node:?}");
        let old = self.check_on(&node, &id);
        let index = old.as_ref().map(|old| old.modify_index);
        match verb {
            "get" => {
                return old
                    .map(Some)
                    .ok_or_else(|| format!("{} doesn't exist", on_node()));
            }
            "set" => self.place_check(check, changes)?,
            "cas" if is_expected(index, check.modify_index) => {
                // Consul forgets to look whether this went well, and goes on.
                let _ = self.place_check(check, changes);
            }
            "cas" => return Err(format!("failed to set {}, index is stale", on_node())),
            "delete-cas" if index != Some(check.modify_index) => {
                return Err(format!("failed to delete {}, index is stale", on_node()));
            }
            "delete" | "delete-cas" => {
                self.remove_check(&node, &id, changes);
                return Ok(None);
            }
            other => return Err(format!("unknown Check verb {other:?}")),
        }
        Ok(self.check_on(&node, &id))
    }

    fn place_check(&mut self, mut check: Check, changes: &mut Changes) -> Result<(), String> {
        if !self.has_node(&check.node) {
            return Err(NO_NODE.to_owned());
        }
        if check.id.is_empty() {
            return Err("failed inserting check: object missing primary index".to_owned());
        }
        if !check.service_id.is_empty() {
            let service = self.service_on(&check.node, &check.service_id);
            let service = service.ok_or("Missing service registration")?;
            check.service_name.clone_from(&service.name);
            check.service_tags.clone_from(&service.tags);
        }
        self.put_check(check, changes);
        Ok(())
    }

    /// By its id, if that is said.
    fn node_called(&self, id: &str, name: &str) -> Option<Arc<Node>> {
        let row = match id {
            "" => self.nodes.get(&fold(name)),
            id => {
                let mut rows = self.nodes.values();
                rows.find(|row| row.node.id.eq_ignore_ascii_case(id))
            }
        };
        row.map(|row| Arc::clone(&row.node))
    }

    fn service_on(&self, node: &str, id: &str) -> Option<Arc<Service>> {
        let row = self.nodes.get(&fold(node))?;
        row.services.get(&fold(id)).cloned()
    }

    fn check_on(&self, node: &str, id: &str) -> Option<Arc<Check>> {
        let row = self.nodes.get(&fold(node))?;
        row.checks.get(&fold(id)).cloned()
    }
}

/// Whether a row has the index that is wanted; 0 is that of one that isn't there.
fn is_expected(index: Option<u64>, wanted: u64) -> bool {
    index.unwrap_or(0) == wanted
}
