//! What the cluster knows: nodes, their services and the checks of both.
//!
//! Every table is kept in the order in which Consul lists it, and every service has its own index
//! and its own answers, so that a change costs the same however much else is registered.

mod read;
mod register;
mod transact;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use read::WholeNode;
pub(crate) use register::CatalogEntry;

use super::answers::Answers;
use super::model::{Check, Node, Service};
use super::{Changes, Record, Topic, fold};

/// The tables. Keys are folded names.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    /// This agent's own node. What is on it is kept on disk as the agent's, not the catalog's.
    home: String,
    nodes_index: u64,
    services_index: u64,
    checks_index: u64,
    /// The last time a service lost its last instance: the index of all unknown services.
    extinction_index: Option<u64>,
    nodes: BTreeMap<String, NodeRow>,
    services: BTreeMap<String, Group>,
}

#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
struct Group {
    index: u64,
    /// By node and service id.
    rows: BTreeMap<(String, String), Row>,
    /// What the list of services says of the rows, so that it needn't look at each of them. By
    /// name: the rows' names may differ by case.
    labels: BTreeMap<String, Label>,
    answers: Answers,
}

/// One name, and how many instances have it and each tag.
#[derive(Clone, Debug, Default)]
struct Label {
    instances: usize,
    tags: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
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
    /// A catalog kept by the agent of node `home`.
    pub(super) fn new(home: &str) -> Self {
        Self {
            home: fold(home),
            nodes_index: 0,
            services_index: 0,
            checks_index: 0,
            extinction_index: None,
            nodes: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }
}

impl Catalog {
    /// Has a change of a row kept on disk, unless it is of this agent's own node.
    fn keep(&self, node_key: &str, changes: &mut Changes, record: impl FnOnce() -> Record) {
        if node_key != self.home {
            changes.record(record);
        }
    }
}

impl Group {
    fn count(&mut self, service: &Service) {
        let label = self.labels.entry(service.name.clone()).or_default();
        label.instances += 1;
        for tag in &service.tags {
            *label.tags.entry(tag.clone()).or_default() += 1;
        }
    }

    fn discount(&mut self, service: &Service) {
        let Some(label) = self.labels.get_mut(&service.name) else {
            return;
        };
        label.instances -= 1;
        for tag in &service.tags {
            if let Some(count) = label.tags.get_mut(tag) {
                *count -= 1;
                if *count == 0 {
                    label.tags.remove(tag);
                }
            }
        }
        if label.instances == 0 {
            self.labels.remove(&service.name);
        }
    }

    fn touch(&mut self, key: &str, changes: &mut Changes) {
        self.index = changes.index();
        self.answers.forget();
        changes.touch(Topic::Service(key.to_owned()));
    }
}
