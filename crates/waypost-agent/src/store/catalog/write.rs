//! Changing the catalog. A write that changes nothing wakes nobody.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::super::answers::Answers;
use super::super::model::{Check, Node, Service, Status};
use super::super::{Changes, Record, Topic, fold};
use super::{Catalog, Group, NodeRow, Row};

impl Catalog {
    pub(crate) fn put_node(&mut self, mut node: Node, changes: &mut Changes) {
        let key = fold(&node.name);
        let node = if let Some(row) = self.nodes.get_mut(&key) {
            node.create_index = row.node.create_index;
            node.modify_index = row.node.modify_index;
            if *row.node == node {
                return;
            }
            node.modify_index = changes.index();
            let node = Arc::new(node);
            row.node = Arc::clone(&node);
            self.touch_services_of_node(&key, changes);
            node
        } else {
            if node.create_index == 0 {
                node.create_index = changes.index();
            }
            node.modify_index = changes.index();
            let node = Arc::new(node);
            self.nodes.insert(
                key.clone(),
                NodeRow {
                    node: Arc::clone(&node),
                    services: BTreeMap::new(),
                    checks: BTreeMap::new(),
                    own_checks: Vec::new(),
                },
            );
            node
        };
        self.keep(&key, changes, || Record::Node(node));
        self.nodes_index = changes.index();
        changes.touch(Topic::Nodes);
        changes.touch(Topic::Node(key));
    }

    /// Registers an instance on a node, or changes what is known of it. Does nothing if the node
    /// is unknown.
    pub(crate) fn put_service(&mut self, node: &str, mut service: Service, changes: &mut Changes) {
        let node_key = fold(node);
        let Some(row) = self.nodes.get_mut(&node_key) else {
            return;
        };
        let id_key = fold(&service.id);
        let name_key = fold(&service.name);
        let old = row.services.get(&id_key).cloned();
        if let Some(old) = &old {
            service.create_index = old.create_index;
            service.modify_index = old.modify_index;
            if **old == service {
                return;
            }
        } else {
            service.create_index = changes.index();
        }
        service.modify_index = changes.index();
        let service = Arc::new(service);
        row.services.insert(id_key.clone(), Arc::clone(&service));
        self.keep(&node_key, changes, || Record::NodeService {
            node: node.to_owned(),
            service: Arc::clone(&service),
        });

        // An instance that changes its name leaves the group it was in, and takes its checks along.
        let checks = match &old {
            Some(old) if fold(&old.name) != name_key => {
                self.remove_row(&fold(&old.name), &node_key, &id_key, changes)
            }
            _ => None,
        };
        let group = self
            .services
            .entry(name_key.clone())
            .or_insert_with(|| Group {
                index: 0,
                rows: BTreeMap::new(),
                labels: BTreeMap::new(),
                answers: Answers::default(),
            });
        group.count(&service);
        match group.rows.entry((node_key.clone(), id_key)) {
            Entry::Occupied(mut row) => {
                let old = std::mem::replace(&mut row.get_mut().service, service);
                group.discount(&old);
            }
            Entry::Vacant(place) => {
                place.insert(Row {
                    service,
                    checks: checks.unwrap_or_default(),
                });
            }
        }
        group.touch(&name_key, changes);
        self.services_index = changes.index();
        changes.touch(Topic::Services);
        changes.touch(Topic::Node(node_key));
    }

    /// Sets a check of a node or of one of its services. Does nothing if they are unknown.
    pub(crate) fn put_check(&mut self, mut check: Check, changes: &mut Changes) {
        let node_key = fold(&check.node);
        let Some(node) = self.nodes.get(&node_key) else {
            return;
        };
        if !check.service_id.is_empty() {
            // The service may have got other tags since the check was registered.
            let Some(service) = node.services.get(&fold(&check.service_id)) else {
                return;
            };
            check.service_name.clone_from(&service.name);
            check.service_tags.clone_from(&service.tags);
        }
        let id_key = fold(&check.id);
        if let Some(old) = node.checks.get(&id_key) {
            check.create_index = old.create_index;
            check.modify_index = old.modify_index;
            if **old == check {
                return;
            }
            if old.service_id != check.service_id {
                let id = check.id.clone();
                self.remove_check(&node_key, &id, changes);
            }
        } else {
            check.create_index = changes.index();
        }
        check.modify_index = changes.index();
        if check.status == Status::Critical {
            changes.fail_check(&check.node, &check.id);
        }
        let check = Arc::new(check);
        if let Some(node) = self.nodes.get_mut(&node_key) {
            node.checks.insert(id_key, Arc::clone(&check));
        }
        self.keep(&node_key, changes, || Record::NodeCheck(Arc::clone(&check)));
        self.with_checks_beside(&node_key, &check, changes, |checks| {
            match position(checks, &check.id) {
                Ok(at) => checks[at] = Arc::clone(&check),
                Err(at) => checks.insert(at, Arc::clone(&check)),
            }
        });
        self.touch_checks(node_key, changes);
    }

    /// Removes a node with all that is on it; whether it was there.
    pub(crate) fn remove_node(&mut self, name: &str, changes: &mut Changes) -> bool {
        let key = fold(name);
        let Some(row) = self.nodes.get(&key) else {
            return false;
        };
        let services: Vec<_> = row.services.values().cloned().collect();
        let checks = row.own_checks.clone();
        for service in services {
            self.remove_service(name, &service.id, changes);
        }
        for check in checks {
            self.remove_check(name, &check.id, changes);
        }
        self.nodes.remove(&key);
        self.keep(&key, changes, || Record::NodeGone(name.to_owned()));
        changes.lose_node(&key);
        self.nodes_index = changes.index();
        changes.touch(Topic::Nodes);
        changes.touch(Topic::Node(key));
        true
    }

    /// Removes an instance and its checks; whether it was there.
    pub(crate) fn remove_service(&mut self, node: &str, id: &str, changes: &mut Changes) -> bool {
        let (node_key, id_key) = (fold(node), fold(id));
        let Some(row) = self.nodes.get_mut(&node_key) else {
            return false;
        };
        let Some(service) = row.services.remove(&id_key) else {
            return false;
        };
        self.keep(&node_key, changes, || Record::NodeServiceGone {
            node: node.to_owned(),
            id: id.to_owned(),
        });
        let checks = self.remove_row(&fold(&service.name), &node_key, &id_key, changes);
        for check in checks.into_iter().flatten() {
            if let Some(row) = self.nodes.get_mut(&node_key) {
                row.checks.remove(&fold(&check.id));
            }
            changes.fail_check(node, &check.id);
            self.touch_checks(node_key.clone(), changes);
        }
        self.services_index = changes.index();
        changes.touch(Topic::Services);
        changes.touch(Topic::Node(node_key));
        true
    }

    /// Removes a check of a node or of one of its services; whether it was there.
    pub(crate) fn remove_check(&mut self, node: &str, id: &str, changes: &mut Changes) -> bool {
        let node_key = fold(node);
        let removed = self
            .nodes
            .get_mut(&node_key)
            .and_then(|row| row.checks.remove(&fold(id)));
        let Some(check) = removed else {
            return false;
        };
        changes.fail_check(node, id);
        self.keep(&node_key, changes, || Record::NodeCheckGone {
            node: node.to_owned(),
            id: id.to_owned(),
        });
        self.with_checks_beside(&node_key, &check, changes, |checks| {
            if let Ok(at) = position(checks, &check.id) {
                checks.remove(at);
            }
        });
        self.touch_checks(node_key, changes);
        true
    }

    // === Details ===

    /// Changes the list of checks that `check` is in, and marks as changed all whose health it
    /// decides: one service, or every service of the node.
    fn with_checks_beside(
        &mut self,
        node_key: &str,
        check: &Check,
        changes: &mut Changes,
        change: impl FnOnce(&mut Vec<Arc<Check>>),
    ) {
        let Some(node) = self.nodes.get_mut(node_key) else {
            return;
        };
        if check.service_id.is_empty() {
            change(&mut node.own_checks);
            self.touch_services_of_node(node_key, changes);
            return;
        }
        let id_key = fold(&check.service_id);
        let Some(name_key) = node.services.get(&id_key).map(|s| fold(&s.name)) else {
            return;
        };
        let Some(group) = self.services.get_mut(&name_key) else {
            return;
        };
        if let Some(row) = group.rows.get_mut(&(node_key.to_owned(), id_key)) {
            change(&mut row.checks);
            group.touch(&name_key, changes);
        }
    }

    /// Takes an instance out of its group, and the group out of the catalog with its last one.
    fn remove_row(
        &mut self,
        name_key: &str,
        node_key: &str,
        id_key: &str,
        changes: &mut Changes,
    ) -> Option<Vec<Arc<Check>>> {
        let group = self.services.get_mut(name_key)?;
        let row = group
            .rows
            .remove(&(node_key.to_owned(), id_key.to_owned()))?;
        group.discount(&row.service);
        group.touch(name_key, changes);
        if group.rows.is_empty() {
            self.services.remove(name_key);
            self.extinction_index = Some(changes.index());
        }
        Some(row.checks)
    }

    fn touch_services_of_node(&mut self, node_key: &str, changes: &mut Changes) {
        let Some(node) = self.nodes.get(node_key) else {
            return;
        };
        let mut names: Vec<_> = node.services.values().map(|s| fold(&s.name)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some(group) = self.services.get_mut(&name) {
                group.touch(&name, changes);
            }
        }
    }

    fn touch_checks(&mut self, node_key: String, changes: &mut Changes) {
        self.checks_index = changes.index();
        changes.touch(Topic::Checks);
        changes.touch(Topic::Node(node_key));
    }
}

/// Where a check is, or belongs, in a list that is in order of folded ids.
fn position(checks: &[Arc<Check>], id: &str) -> Result<usize, usize> {
    let id = fold(id);
    checks.binary_search_by(|check| fold(&check.id).cmp(&id))
}
