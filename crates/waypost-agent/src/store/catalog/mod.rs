//! The catalog: all nodes, their services and the checks of both.
//!
//! Tables are sorted in the order in which Consul lists them. A write that changes nothing wakes no
//! watcher.

mod registration;
mod service_group;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::case_folding::fold_case;
use super::changes::Changes;
use super::journal_record::JournalRecord;
use super::model::{Check, CheckStatus, Node, Service};
use super::response_cache::{CacheKey, CacheSlot};
use super::watch::Topic;

pub(crate) use registration::CatalogEntry;
use service_group::ServiceGroup;

/// The catalog. Keys are case-folded names.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    /// The node of this agent. Its rows are journaled by [`super::LocalState`], not here.
    local_node: String,
    nodes_index: u64,
    services_index: u64,
    /// The serialized list of services, compact and indented.
    services_cache: [CacheSlot; 2],
    checks_index: u64,
    /// The index at which a service last lost its last instance. It is the index of every unknown
    /// service.
    extinction_index: Option<u64>,
    nodes: BTreeMap<String, NodeRow>,
    services: BTreeMap<String, ServiceGroup>,
}

#[derive(Clone, Debug)]
struct NodeRow {
    node: Arc<Node>,
    /// By service id.
    services: BTreeMap<String, Arc<Service>>,
    /// The checks of the node and of its services, by check id.
    checks: BTreeMap<String, Arc<Check>>,
    /// The checks of the node alone, sorted by id.
    node_checks: Vec<Arc<Check>>,
}

/// An instance with its node and all checks that determine its health.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub node: Arc<Node>,
    pub service: Arc<Service>,
    /// The checks of the node, then those of the instance.
    pub checks: Vec<Arc<Check>>,
}

/// A node with its services and checks.
#[derive(Clone, Debug)]
pub(crate) struct FullNode {
    pub node: Arc<Node>,
    pub services: Vec<Arc<Service>>,
    pub checks: Vec<Arc<Check>>,
}

impl Catalog {
    /// An empty catalog for the agent of the node `local_node`.
    pub(super) fn new(local_node: &str) -> Self {
        Self {
            local_node: fold_case(local_node),
            nodes_index: 0,
            services_index: 0,
            services_cache: Default::default(),
            checks_index: 0,
            extinction_index: None,
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    // === Reads ===

    pub(crate) fn nodes(&self) -> (u64, impl Iterator<Item = &Arc<Node>>) {
        (self.nodes_index, self.nodes.values().map(|row| &row.node))
    }

    /// Every node with its services and checks.
    pub(crate) fn full_nodes(&self) -> (u64, impl Iterator<Item = FullNode>) {
        let index = self.nodes_index.max(self.services_index);
        let nodes = self.nodes.values().map(NodeRow::full);
        (index.max(self.checks_index), nodes)
    }

    /// The nodes other than this agent's, with their services and checks.
    pub(super) fn remote_nodes(&self) -> impl Iterator<Item = FullNode> {
        let remote = self.nodes.iter().filter(|(key, _)| !self.is_local(key));
        remote.map(|(_, row)| row.full())
    }

    /// A node and its services sorted by id.
    pub(crate) fn node(
        &self,
        name: &str,
    ) -> Option<(u64, &Arc<Node>, impl Iterator<Item = &Arc<Service>>)> {
        let row = self.nodes.get(&fold_case(name))?;
        let index = self.nodes_index.max(self.services_index);
        Some((index, &row.node, row.services.values()))
    }

    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(&fold_case(name))
    }

    /// Finds a node by id, or by name if `id` is empty.
    pub(super) fn find_node(&self, id: &str, name: &str) -> Option<&Arc<Node>> {
        let row = if id.is_empty() {
            self.nodes.get(&fold_case(name))
        } else {
            let mut rows = self.nodes.values();
            rows.find(|row| row.node.id.eq_ignore_ascii_case(id))
        };
        row.map(|row| &row.node)
    }

    /// The names of all services as registered.
    pub(crate) fn service_names(&self) -> Vec<String> {
        let names = self.services.values().filter_map(ServiceGroup::name);
        names.map(str::to_owned).collect()
    }

    /// Every service with the tags of its instances, without duplicates.
    pub(crate) fn services(&self) -> (u64, BTreeMap<&str, Vec<&str>>) {
        let groups = self.services.values();
        let services = groups.flat_map(ServiceGroup::tags_by_name);
        (self.services_index, services.collect())
    }

    /// The same as [`services`](Self::services), for the instances on nodes that match a condition.
    pub(crate) fn services_on(
        &self,
        is_wanted: impl Fn(&Node) -> bool,
    ) -> (u64, BTreeMap<&str, Vec<&str>>) {
        let nodes = self.nodes.values().filter(|row| is_wanted(&row.node));
        let mut services: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for service in nodes.flat_map(|row| row.services.values()) {
            let tags = services.entry(&service.name).or_default();
            tags.extend(service.tags.iter().map(String::as_str));
        }
        for tags in services.values_mut() {
            tags.sort_unstable();
            tags.dedup();
        }
        (self.services_index, services)
    }

    /// The index of a service. It changes only with the service, its checks and its nodes.
    pub(crate) fn service_index(&self, name: &str) -> u64 {
        match (self.services.get(&fold_case(name)), self.extinction_index) {
            (Some(group), _) => group.index(),
            (None, Some(index)) => index,
            (None, None) => self
                .nodes_index
                .max(self.services_index)
                .max(self.checks_index),
        }
    }

    /// The index of the Connect-native instances of a service and its proxies.
    pub(crate) fn connect_index(&self, name: &str) -> u64 {
        let key = fold_case(name);
        let groups = self.services.values();
        let proxies = groups.filter(|group| group.has_proxied(&key));
        let newest = proxies.map(ServiceGroup::index).max();
        self.service_index(name)
            .max(newest.unwrap_or_default())
            .max(self.extinction_index.unwrap_or_default())
    }

    /// The Connect-native instances of a service and its proxies, sorted by node and id.
    pub(crate) fn connect_instances(&self, name: &str) -> Vec<Instance> {
        let key = fold_case(name);
        let native = self.instances(name);
        let native = native.filter(|instance| instance.service.connect.native);
        let groups = self.services.values();
        let proxies = groups
            .filter(|group| group.has_proxied(&key))
            .flat_map(|group| self.instances_of(group))
            .filter(|instance| {
                let proxied = instance.service.proxied_service();
                proxied.is_some_and(|proxied| fold_case(proxied) == key)
            });
        let mut found: Vec<_> = native.chain(proxies).collect();
        found.sort_by_cached_key(|instance| {
            (
                fold_case(&instance.node.name),
                fold_case(&instance.service.id),
            )
        });
        found
    }

    /// The instances of a service, sorted by node and id.
    pub(crate) fn instances(&self, name: &str) -> impl Iterator<Item = Instance> {
        let group = self.services.get(&fold_case(name));
        group.into_iter().flat_map(|group| self.instances_of(group))
    }

    fn instances_of(&self, group: &ServiceGroup) -> impl Iterator<Item = Instance> {
        group.rows().filter_map(|(node_key, row)| {
            let node = self.nodes.get(node_key)?;
            Some(Instance {
                node: Arc::clone(&node.node),
                service: Arc::clone(&row.service),
                checks: node
                    .node_checks
                    .iter()
                    .chain(&row.checks)
                    .cloned()
                    .collect(),
            })
        })
    }

    /// The first instance that matches a condition, and its node.
    pub(crate) fn find_instance(
        &self,
        is_wanted: impl Fn(&Service) -> bool,
    ) -> Option<(&Arc<Service>, &Arc<Node>)> {
        self.nodes.values().find_map(|row| {
            let service = row.services.values().find(|service| is_wanted(service))?;
            Some((service, &row.node))
        })
    }

    /// The index of the list of services, and the slot for it serialized.
    pub(crate) fn services_cache_slot(&self, pretty: bool) -> (u64, &CacheSlot) {
        (
            self.services_index,
            &self.services_cache[usize::from(pretty)],
        )
    }

    /// The slot for a serialized response about a service. `None` if the service is unknown.
    pub(crate) fn cache_slot(&self, name: &str, key: &CacheKey) -> Option<CacheSlot> {
        let group = self.services.get(&fold_case(name))?;
        Some(group.cache_slot(key))
    }

    pub(super) fn service_on(&self, node: &str, id: &str) -> Option<&Arc<Service>> {
        let row = self.nodes.get(&fold_case(node))?;
        row.services.get(&fold_case(id))
    }

    pub(super) fn check_on(&self, node: &str, id: &str) -> Option<&Arc<Check>> {
        let row = self.nodes.get(&fold_case(node))?;
        row.checks.get(&fold_case(id))
    }

    /// The checks of the instances of a service, sorted by node and check id.
    pub(crate) fn checks_of_service(&self, name: &str) -> (u64, Vec<Arc<Check>>) {
        let group = self.services.get(&fold_case(name));
        let rows = group.into_iter().flat_map(ServiceGroup::rows);
        let mut checks: Vec<_> = rows
            .flat_map(|(node_key, row)| row.checks.iter().map(move |check| (node_key, check)))
            .collect();
        checks.sort_by_cached_key(|(node_key, check)| (*node_key, fold_case(&check.id)));
        let checks = checks.into_iter().map(|(_, check)| Arc::clone(check));
        (self.checks_index, checks.collect())
    }

    /// The checks of a node and of its services, sorted by id.
    pub(crate) fn checks_of_node(&self, name: &str) -> (u64, Vec<Arc<Check>>) {
        let row = self.nodes.get(&fold_case(name));
        let checks = row.into_iter().flat_map(|row| row.checks.values());
        (self.checks_index, checks.cloned().collect())
    }

    /// All checks, or those with a status, sorted by node and id.
    pub(crate) fn checks_in_state(&self, status: Option<CheckStatus>) -> (u64, Vec<Arc<Check>>) {
        let checks = self.nodes.values().flat_map(|row| row.checks.values());
        let wanted = checks.filter(|check| status.is_none_or(|status| check.status == status));
        (self.checks_index, wanted.cloned().collect())
    }

    // === Writes ===

    /// Adds or changes a node. A node with a known id and a different name replaces the old node and
    /// everything on it.
    pub(super) fn put_node_by_id(&mut self, mut node: Node, changes: &mut Changes) {
        let mut rows = self.nodes.values();
        let renamed = rows.find(|row| {
            !node.id.is_empty()
                && row.node.id.eq_ignore_ascii_case(&node.id)
                && fold_case(&row.node.name) != fold_case(&node.name)
        });
        let renamed = renamed.map(|row| (row.node.name.clone(), row.node.create_index));
        if let Some((old_name, create_index)) = renamed {
            self.remove_node(&old_name, changes);
            node.create_index = create_index;
        }
        self.put_node(node, changes);
    }

    /// Adds or changes a node.
    pub(crate) fn put_node(&mut self, mut node: Node, changes: &mut Changes) {
        let key = fold_case(&node.name);
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
            let row = NodeRow::new(Arc::clone(&node));
            self.nodes.insert(key.clone(), row);
            node
        };
        self.record(&key, changes, || JournalRecord::Node(node));
        self.nodes_index = changes.index();
        changes.touch(Topic::Nodes);
        changes.touch(Topic::Node(key));
    }

    /// Adds or changes an instance. Does nothing if the node is unknown.
    pub(crate) fn put_service(&mut self, node: &str, mut service: Service, changes: &mut Changes) {
        let node_key = fold_case(node);
        let Some(row) = self.nodes.get_mut(&node_key) else {
            return;
        };
        let id_key = fold_case(&service.id);
        let name_key = fold_case(&service.name);
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
        self.record(&node_key, changes, || JournalRecord::NodeService {
            node: node.to_owned(),
            service: Arc::clone(&service),
        });

        // An instance that changes its name moves to another group with its checks.
        let checks = match &old {
            Some(old) if fold_case(&old.name) != name_key => {
                self.remove_from_group(&fold_case(&old.name), &node_key, &id_key, changes)
            }
            _ => None,
        };
        let group = self.services.entry(name_key.clone()).or_default();
        group.insert(&node_key, &id_key, service, checks.unwrap_or_default());
        group.touch(&name_key, changes);
        self.touch_services(node_key, changes);
    }

    /// Adds or changes a check of a node or instance. Does nothing if that is unknown.
    pub(crate) fn put_check(&mut self, mut check: Check, changes: &mut Changes) {
        let node_key = fold_case(&check.node);
        let Some(node) = self.nodes.get(&node_key) else {
            return;
        };
        if !check.service_id.is_empty() {
            // The tags of the service may have changed since the check was registered.
            let Some(service) = node.services.get(&fold_case(&check.service_id)) else {
                return;
            };
            check.service_name.clone_from(&service.name);
            check.service_tags.clone_from(&service.tags);
        }
        let id_key = fold_case(&check.id);
        if let Some(old) = node.checks.get(&id_key) {
            check.create_index = old.create_index;
            check.modify_index = old.modify_index;
            if **old == check {
                return;
            }
            if old.status != check.status {
                changes.status_changed(&check);
            }
            if old.service_id != check.service_id {
                let id = check.id.clone();
                self.remove_check(&node_key, &id, changes);
            }
        } else {
            check.create_index = changes.index();
            changes.status_changed(&check);
        }
        check.modify_index = changes.index();
        if check.status == CheckStatus::Critical {
            changes.check_failed(&check.node, &check.id);
        }
        let check = Arc::new(check);
        if let Some(node) = self.nodes.get_mut(&node_key) {
            node.checks.insert(id_key, Arc::clone(&check));
        }
        self.record(&node_key, changes, || {
            JournalRecord::NodeCheck(Arc::clone(&check))
        });
        self.change_check_list(&node_key, &check, changes, |checks| {
            match position(checks, &check.id) {
                Ok(at) => checks[at] = Arc::clone(&check),
                Err(at) => checks.insert(at, Arc::clone(&check)),
            }
        });
        self.touch_checks(node_key, changes);
    }

    /// Removes a node with everything on it. Returns whether it existed.
    pub(crate) fn remove_node(&mut self, name: &str, changes: &mut Changes) -> bool {
        let key = fold_case(name);
        let Some(row) = self.nodes.get(&key) else {
            return false;
        };
        let services: Vec<_> = row.services.values().cloned().collect();
        let checks = row.node_checks.clone();
        for service in services {
            self.remove_service(name, &service.id, changes);
        }
        for check in checks {
            self.remove_check(name, &check.id, changes);
        }
        self.nodes.remove(&key);
        self.record(&key, changes, || {
            JournalRecord::NodeRemoved(name.to_owned())
        });
        changes.node_removed(&key);
        self.nodes_index = changes.index();
        changes.touch(Topic::Nodes);
        changes.touch(Topic::Node(key));
        true
    }

    /// Removes an instance and its checks. Returns whether it existed.
    pub(crate) fn remove_service(&mut self, node: &str, id: &str, changes: &mut Changes) -> bool {
        let (node_key, id_key) = (fold_case(node), fold_case(id));
        let Some(row) = self.nodes.get_mut(&node_key) else {
            return false;
        };
        let Some(service) = row.services.remove(&id_key) else {
            return false;
        };
        self.record(&node_key, changes, || JournalRecord::NodeServiceRemoved {
            node: node.to_owned(),
            id: id.to_owned(),
        });
        let name_key = fold_case(&service.name);
        let checks = self.remove_from_group(&name_key, &node_key, &id_key, changes);
        for check in checks.into_iter().flatten() {
            if let Some(row) = self.nodes.get_mut(&node_key) {
                row.checks.remove(&fold_case(&check.id));
            }
            changes.check_removed(&check);
            self.touch_checks(node_key.clone(), changes);
        }
        self.touch_services(node_key, changes);
        true
    }

    /// Removes a check of a node or instance. Returns whether it existed.
    pub(crate) fn remove_check(&mut self, node: &str, id: &str, changes: &mut Changes) -> bool {
        let node_key = fold_case(node);
        let removed = self
            .nodes
            .get_mut(&node_key)
            .and_then(|row| row.checks.remove(&fold_case(id)));
        let Some(check) = removed else {
            return false;
        };
        changes.check_removed(&check);
        self.record(&node_key, changes, || JournalRecord::NodeCheckRemoved {
            node: node.to_owned(),
            id: id.to_owned(),
        });
        self.change_check_list(&node_key, &check, changes, |checks| {
            if let Ok(at) = position(checks, &check.id) {
                checks.remove(at);
            }
        });
        self.touch_checks(node_key, changes);
        true
    }

    // === Details ===

    fn is_local(&self, node_key: &str) -> bool {
        node_key == self.local_node
    }

    /// Journals a change of a row, unless the row is on the node of this agent.
    fn record(
        &self,
        node_key: &str,
        changes: &mut Changes,
        record: impl FnOnce() -> JournalRecord,
    ) {
        if !self.is_local(node_key) {
            changes.record(record);
        }
    }

    /// Changes the list of checks that contains `check`, and touches every service whose health
    /// depends on it.
    fn change_check_list(
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
            change(&mut node.node_checks);
            self.touch_services_of_node(node_key, changes);
            return;
        }
        let id_key = fold_case(&check.service_id);
        let Some(name_key) = node.services.get(&id_key).map(|s| fold_case(&s.name)) else {
            return;
        };
        let Some(group) = self.services.get_mut(&name_key) else {
            return;
        };
        if let Some(checks) = group.checks_mut(node_key, &id_key) {
            change(checks);
            group.touch(&name_key, changes);
        }
    }

    /// Removes an instance from its group, and the group with its last instance. Returns the
    /// checks of the instance.
    fn remove_from_group(
        &mut self,
        name_key: &str,
        node_key: &str,
        id_key: &str,
        changes: &mut Changes,
    ) -> Option<Vec<Arc<Check>>> {
        let group = self.services.get_mut(name_key)?;
        let checks = group.remove(node_key, id_key)?;
        group.touch(name_key, changes);
        if group.is_empty() {
            self.services.remove(name_key);
            self.extinction_index = Some(changes.index());
        }
        Some(checks)
    }

    fn touch_services_of_node(&mut self, node_key: &str, changes: &mut Changes) {
        let Some(node) = self.nodes.get(node_key) else {
            return;
        };
        let mut names: Vec<_> = node.services.values().map(|s| fold_case(&s.name)).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            if let Some(group) = self.services.get_mut(&name) {
                group.touch(&name, changes);
            }
        }
    }

    fn touch_services(&mut self, node_key: String, changes: &mut Changes) {
        self.services_index = changes.index();
        self.services_cache = Default::default();
        changes.touch(Topic::Services);
        changes.touch(Topic::Node(node_key));
    }

    fn touch_checks(&mut self, node_key: String, changes: &mut Changes) {
        self.checks_index = changes.index();
        changes.touch(Topic::Checks);
        changes.touch(Topic::Node(node_key));
    }
}

impl NodeRow {
    fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
            node_checks: Vec::new(),
        }
    }

    fn full(&self) -> FullNode {
        FullNode {
            node: Arc::clone(&self.node),
            services: self.services.values().cloned().collect(),
            checks: self.checks.values().cloned().collect(),
        }
    }
}

/// The position of a check in a list sorted by case-folded id, or where it would be inserted.
fn position(checks: &[Arc<Check>], id: &str) -> Result<usize, usize> {
    let id = fold_case(id);
    checks.binary_search_by(|check| fold_case(&check.id).cmp(&id))
}
