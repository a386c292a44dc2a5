//! What `/v1/catalog/register` does: a node, a service and checks in one go, or nothing at all.

use super::super::model::{Check, Node, Service};
use super::super::{Changes, fold};
use super::Catalog;

/// What is to be in the catalog, whoever runs it.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogEntry {
    pub node: Node,
    /// Leaves a node that is known as it is.
    pub skip_node_update: bool,
    pub service: Option<Service>,
    pub checks: Vec<Check>,
}

impl Catalog {
    /// Sets all of it, or nothing. The error is Consul's.
    pub(crate) fn register(
        &mut self,
        entry: CatalogEntry,
        changes: &mut Changes,
    ) -> Result<(), String> {
        self.fault_of(&entry).map_or(Ok(()), Err)?;
        let name = entry.node.name.clone();
        if !entry.skip_node_update || !self.nodes.contains_key(&fold(&name)) {
            self.put_node_by_id(entry.node, changes);
        }
        if let Some(service) = entry.service {
            self.put_service(&name, service, changes);
        }
        for mut check in entry.checks {
            let row = self.nodes.get(&fold(&name));
            let service = row.and_then(|row| row.services.get(&fold(&check.service_id)));
            if let Some(service) = service {
                check.service_name.clone_from(&service.name);
                check.service_tags.clone_from(&service.tags);
            }
            self.put_check(check, changes);
        }
        Ok(())
    }

    fn fault_of(&self, entry: &CatalogEntry) -> Option<String> {
        let name = &entry.node.name;
        if entry
            .service
            .as_ref()
            .is_some_and(|service| service.name.is_empty())
        {
            return Some(
                "failed inserting service: failed inserting service: object missing primary index"
                    .to_owned(),
            );
        }
        let row = self.nodes.get(&fold(name));
        entry.checks.iter().find_map(|check| {
            let service = fold(&check.service_id);
            let registered = row.is_some_and(|row| row.services.contains_key(&service));
            let comes = entry
                .service
                .as_ref()
                .is_some_and(|new| fold(&new.id) == service);
            if check.node != *name {
                let node = &check.node;
                Some(format!("check node {node:?} does not match node {name:?}"))
            } else if check.id.is_empty() {
                Some(format!(
                    "failed inserting check: failed inserting check: object missing primary index \
                     on node {name:?}"
                ))
            } else if !service.is_empty() && !registered && !comes {
                Some(format!(
                    "failed inserting check: Missing service registration on node {name:?}"
                ))
            } else {
                None
            }
        })
    }

    /// A node that comes back under another name is the same node: it leaves its old name, with
    /// all that was there.
    pub(super) fn put_node_by_id(&mut self, mut node: Node, changes: &mut Changes) {
        let mut rows = self.nodes.values();
        let known = rows.find(|row| {
            !node.id.is_empty()
                && row.node.id.eq_ignore_ascii_case(&node.id)
                && fold(&row.node.name) != fold(&node.name)
        });
        let known = known.map(|row| (row.node.name.clone(), row.node.create_index));
        if let Some((old_name, created)) = known {
            self.remove_node(&old_name, changes);
            node.create_index = created;
        }
        self.put_node(node, changes);
    }
}
