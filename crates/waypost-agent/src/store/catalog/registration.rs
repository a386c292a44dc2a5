//! `/v1/catalog/register`: sets a node, a service and checks together, or nothing.

use super::super::case_folding::fold_case;
use super::super::changes::Changes;
use super::super::model::{Check, Node, Service};
use super::Catalog;

/// What is registered in the catalog by an external process.
#[derive(Clone, Debug, Default)]
pub(crate) struct CatalogEntry {
    pub node: Node,
    /// Leaves a node that already exists unchanged.
    pub skip_node_update: bool,
    pub service: Option<Service>,
    pub checks: Vec<Check>,
}

impl CatalogEntry {
    /// Sets everything, or nothing if there is an error. The error is Consul's.
    pub(crate) fn register(
        self,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) -> Result<(), String> {
        self.validate(catalog)?;
        let name = self.node.name.clone();
        if !self.skip_node_update || !catalog.has_node(&name) {
            catalog.put_node_by_id(self.node, changes);
        }
        if let Some(service) = self.service {
            catalog.put_service(&name, service, changes);
        }
        for mut check in self.checks {
            if let Some(service) = catalog.service_on(&name, &check.service_id) {
                check.service_name.clone_from(&service.name);
                check.service_tags.clone_from(&service.tags);
            }
            catalog.put_check(check, changes);
        }
        Ok(())
    }

    fn validate(&self, catalog: &Catalog) -> Result<(), String> {
        let node = &self.node.name;
        let service = self.service.as_ref();
        if service.is_some_and(|service| service.name.is_empty()) {
            return Err(
                "failed inserting service: failed inserting service: object missing primary index"
                    .to_owned(),
            );
        }
        for check in &self.checks {
            let id = &check.service_id;
            let is_registered = catalog.service_on(node, id).is_some();
            let is_new = service.is_some_and(|new| fold_case(&new.id) == fold_case(id));
            if check.node != *node {
                let other = &check.node;
                return Err(format!("check node {other:?} does not match node {node:?}"));
            } else if check.id.is_empty() {
                return Err(format!(
                    "failed inserting check: failed inserting check: object missing primary index \
                     on node {node:?}"
                ));
            } else if !id.is_empty() && !is_registered && !is_new {
                return Err(format!(
                    "failed inserting check: Missing service registration on node {node:?}"
                ));
            }
        }
        Ok(())
    }
}
