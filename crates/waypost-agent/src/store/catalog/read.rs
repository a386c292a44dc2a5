//! Looking at the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::answers::{AnswerKey, Slot};
use super::super::fold;
use super::super::model::{Check, Node, Service, Status};
use super::{Catalog, Instance, NodeRow};

/// A node with its services and checks.
pub(crate) type WholeNode<'a> = (&'a Arc<Node>, Vec<&'a Arc<Service>>, Vec<&'a Arc<Check>>);

impl Catalog {
    pub(crate) fn nodes(&self) -> (u64, impl Iterator<Item = &Arc<Node>>) {
        (self.nodes_index, self.nodes.values().map(|row| &row.node))
    }

    pub(crate) fn has_node(&self, name: &str) -> bool {
        self.nodes.contains_key(&fold(name))
    }

    /// Every service with the tags of its instances, each tag once.
    pub(crate) fn services(&self) -> (u64, BTreeMap<&str, Vec<&str>>) {
        let labels = self.services.values().flat_map(|group| &group.labels);
        let services = labels.map(|(name, label)| {
            let tags = label.tags.keys().map(String::as_str).collect();
            (name.as_str(), tags)
        });
        (self.services_index, services.collect())
    }

    /// Those of the instances on nodes that `takes` likes.
    pub(crate) fn services_on(
        &self,
        takes: impl Fn(&Node) -> bool,
    ) -> (u64, BTreeMap<&str, Vec<&str>>) {
        let nodes = self.nodes.values().filter(|row| takes(&row.node));
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

    /// Every node with its services and checks.
    pub(crate) fn everything(&self) -> (u64, impl Iterator<Item = WholeNode<'_>>) {
        let rows = self.nodes.values().map(NodeRow::whole);
        let index = self.nodes_index.max(self.services_index);
        (index.max(self.checks_index), rows)
    }

    /// The nodes that aren't this agent's, with their services and checks.
    pub(crate) fn others(&self) -> impl Iterator<Item = WholeNode<'_>> {
        let others = self.nodes.iter().filter(|(key, _)| **key != self.home);
        others.map(|(_, row)| row.whole())
    }

    /// The names of all services, as they were registered.
    pub(crate) fn service_names(&self) -> Vec<String> {
        let rows = self
            .services
            .values()
            .filter_map(|g| g.rows.first_key_value());
        rows.map(|(_, row)| row.service.name.clone()).collect()
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
}

impl NodeRow {
    fn whole(&self) -> WholeNode<'_> {
        let services = self.services.values().collect();
        (&self.node, services, self.checks.values().collect())
    }
}
