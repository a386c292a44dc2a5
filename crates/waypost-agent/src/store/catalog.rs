//! What the cluster knows: nodes, their services and the checks of both.
//!
//! Every table is kept in the order in which Consul lists it, and every service has its own index
//! and its own answers, so that a change costs the same however much else is registered.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::answers::{AnswerKey, Answers, Slot};
use super::model::{Check, Node, Service, Status};
use super::{Changes, Topic, fold};

/// The tables. Keys are folded names.
#[derive(Debug)]
pub(crate) struct Catalog {
    nodes_index: u64,
    services_index: u64,
    checks_index: u64,
    /// The last time a service lost its last instance: the index of all unknown services.
    extinction_index: Option<u64>,
    nodes: BTreeMap<String, NodeRow>,
    services: BTreeMap<String, Group>,
}

#[derive(Debug)]
struct NodeRow {
    node: Arc<Node>,
    /// By service id.
    services: BTreeMap<String, Arc<Service>>,
    /// By check id: those of the node and those of its services.
    checks: BTreeMap<String, Arc<Check>>,
    /// Those of the node alone, in order of their ids.
    own_checks: Vec<Arc<Check>>,
}

/// All instances of one name.
#[derive(Debug)]
struct Group {
    index: u64,
    /// By node and service id.
    rows: BTreeMap<(String, String), Row>,
    answers: Answers,
}

#[derive(Debug)]
struct Row {
    service: Arc<Service>,
    /// In order of their ids.
    checks: Vec<Arc<Check>>,
}

/// One instance with all that decides its health.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub node: Arc<Node>,
    pub service: Arc<Service>,
    /// The checks of its node, then its own.
    pub checks: Vec<Arc<Check>>,
}

impl Catalog {
    pub(super) fn new() -> Self {
        Self {
            nodes_index: 0,
            services_index: 0,
            checks_index: 0,
            extinction_index: None,
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    // === Reading ===

    pub(crate) fn nodes(&self) -> (u64, impl Iterator<Item = &Arc<Node>>) {
        (self.nodes_index, self.nodes.values().map(|row| &row.node))
    }

    /// Every service that has an instance on a node that `takes` likes, with the tags of all those
    /// instances, each tag once.
    pub(crate) fn services(
        &self,
        takes: impl Fn(&Node) -> bool,
    ) -> (u64, BTreeMap<&str, Vec<&str>>) {
        let takes_node = |key: &String| self.nodes.get(key).is_some_and(|row| takes(&row.node));
        let rows = self.services.values().flat_map(|group| &group.rows);
        let mut services: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (_, row) in rows.filter(|((node, _), _)| takes_node(node)) {
            let tags = services.entry(&row.service.name).or_default();
            tags.extend(row.service.tags.iter().map(String::as_str));
        }
        for tags in services.values_mut() {
            tags.sort_unstable();
            tags.dedup();
        }
        (self.services_index, services)
    }

    /// A node and its services, in order of their ids.
    pub(crate) fn node(
        &self,
        name: &str,
    ) -> Option<(u64, &Arc<Node>, impl Iterator<Item = &Arc<Service>>)> {
        let row = self.nodes.get(&fold(name))?;
        let index = self.nodes_index.max(self.services_index);
        Some((index, &row.node, row.services.values()))
    }

    /// The index of a service: it moves only when the service, its checks or its nodes change.
    pub(crate) fn service_index(&self, name: &str) -> u64 {
        match (self.services.get(&fold(name)), self.extinction_index) {
            (Some(group), _) => group.index,
            (None, Some(index)) => index,
            (None, None) => self
                .nodes_index
                .max(self.services_index)
                .max(self.checks_index),
        }
    }

    /// The instances of a service, in order of node and id.
    pub(crate) fn instances(&self, name: &str) -> impl Iterator<Item = Instance> {
        let rows = self.services.get(&fold(name)).map(|group| &group.rows);
        rows.into_iter().flatten().filter_map(|((node, _), row)| {
            let node = self.nodes.get(node)?;
            Some(Instance {
                node: Arc::clone(&node.node),
                service: Arc::clone(&row.service),
                checks: node.own_checks.iter().chain(&row.checks).cloned().collect(),
            })
        })
    }

    /// An instance that `is_wanted`, and its node.
    pub(crate) fn service_where(
        &self,
        is_wanted: impl Fn(&Service) -> bool,
    ) -> Option<(&Arc<Service>, &Arc<Node>)> {
        self.nodes.values().find_map(|row| {
            let service = row.services.values().find(|service| is_wanted(service))?;
            Some((service, &row.node))
        })
    }

    /// Where the serialised answer about a known service is kept.
    pub(crate) fn answer(&self, name: &str, key: &AnswerKey) -> Option<Slot> {
        let group = self.services.get(&fold(name))?;
        Some(group.answers.slot(key))
    }

    /// The checks of a service's instances, in order of node and check id.
    pub(crate) fn checks_of_service(&self, name: &str) -> (u64, Vec<Arc<Check>>) {
        let rows = self.services.get(&fold(name)).map(|group| &group.rows);
        let mut checks: Vec<_> = rows
            .into_iter()
            .flatten()
            .flat_map(|((node, _), row)| row.checks.iter().map(move |check| (node, check)))
            .collect();
        checks.sort_by_cached_key(|(node, check)| (*node, fold(&check.id)));
        let checks = checks.into_iter().map(|(_, check)| Arc::clone(check));
        (self.checks_index, checks.collect())
    }

    /// The checks of a node and of its services, in order of their ids.
    pub(crate) fn checks_of_node(&self, name: &str) -> (u64, Vec<Arc<Check>>) {
        let row = self.nodes.get(&fold(name));
        let checks = row.into_iter().flat_map(|row| row.checks.values());
        (self.checks_index, checks.cloned().collect())
    }

    /// All checks, or those of one status, in order of node and id.
    pub(crate) fn checks_in_state(&self, status: Option<Status>) -> (u64, Vec<Arc<Check>>) {
        let checks = self.nodes.values().flat_map(|row| row.checks.values());
        let wanted = checks.filter(|check| status.is_none_or(|status| check.status == status));
        (self.checks_index, wanted.cloned().collect())
    }

    // === Writing ===

    pub(crate) fn put_node(&mut self, mut node: Node, changes: &mut Changes) {
        let key = fold(&node.name);
        if let Some(row) = self.nodes.get_mut(&key) {
            node.create_index = row.node.create_index;
            node.modify_index = row.node.modify_index;
            if *row.node == node {
                return;
            }
            node.modify_index = changes.index();
            row.node = Arc::new(node);
            self.touch_services_of_node(&key, changes);
        } else {
            node.create_index = changes.index();
            node.modify_index = changes.index();
            self.nodes.insert(
                key.clone(),
                NodeRow {
                    node: Arc::new(node),
                    services: BTreeMap::new(),
                    checks: BTreeMap::new(),
                    own_checks: Vec::new(),
                },
            );
        }
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
                answers: Answers::default(),
            });
        match group.rows.entry((node_key.clone(), id_key)) {
            Entry::Occupied(mut row) => row.get_mut().service = service,
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
        if !check.service_id.is_empty() && !node.services.contains_key(&fold(&check.service_id)) {
            return;
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
        let check = Arc::new(check);
        if let Some(node) = self.nodes.get_mut(&node_key) {
            node.checks.insert(id_key, Arc::clone(&check));
        }
        self.with_checks_beside(&node_key, &check, changes, |checks| {
            match position(checks, &check.id) {
                Ok(at) => checks[at] = Arc::clone(&check),
                Err(at) => checks.insert(at, Arc::clone(&check)),
            }
        });
        self.touch_checks(node_key, changes);
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
        let checks = self.remove_row(&fold(&service.name), &node_key, &id_key, changes);
        for check in checks.into_iter().flatten() {
            if let Some(row) = self.nodes.get_mut(&node_key) {
                row.checks.remove(&fold(&check.id));
            }
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

impl Group {
    fn touch(&mut self, key: &str, changes: &mut Changes) {
        self.index = changes.index();
        self.answers.forget();
        changes.touch(Topic::Service(key.to_owned()));
    }
}

/// Where a check is, or belongs, in a list that is in order of folded ids.
fn position(checks: &[Arc<Check>], id: &str) -> Result<usize, usize> {
    let id = fold(id);
    checks.binary_search_by(|check| fold(&check.id).cmp(&id))
}
