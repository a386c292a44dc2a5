//! What is kept: one row of the state, or that it is gone.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Check, Entry, Node, Service, Session, Status, fold};
use crate::decode::CheckDefinition;

/// A change of one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The index of the write that the records before this one belong to.
    Index(u64),
    Key(Arc<Entry>),
    KeyGone {
        key: String,
        index: u64,
    },
    Session(Arc<Session>),
    SessionGone {
        id: String,
        index: u64,
    },
    /// A service of this agent.
    Service(Arc<Service>),
    ServiceGone(String),
    /// A check of this agent, and what it does; nothing if it is there for maintenance.
    Check {
        check: Arc<Check>,
        definition: Option<Arc<CheckDefinition>>,
    },
    CheckGone(String),
    /// A node that isn't this agent's, and what is on it.
    Node(Arc<Node>),
    NodeGone(String),
    NodeService {
        node: String,
        service: Arc<Service>,
    },
    NodeServiceGone {
        node: String,
        id: String,
    },
    NodeCheck(Arc<Check>),
    NodeCheckGone {
        node: String,
        id: String,
    },
    /// What a check has found.
    Found {
        check: String,
        status: Status,
        output: String,
    },
}

/// The rows that are left when all records have been read.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub index: u64,
    pub keys: BTreeMap<String, Arc<Entry>>,
    /// The index at which the last key went.
    pub keys_gone: u64,
    pub sessions: BTreeMap<String, Arc<Session>>,
    pub sessions_gone: u64,
    pub services: BTreeMap<String, Arc<Service>>,
    pub checks: BTreeMap<String, (Arc<Check>, Option<Arc<CheckDefinition>>)>,
    /// Those that aren't this agent's, by folded name.
    pub nodes: BTreeMap<String, KeptNode>,
}

/// A node that isn't this agent's. What is on it is kept by folded id.
#[derive(Debug)]
pub(crate) struct KeptNode {
    pub node: Arc<Node>,
    pub services: BTreeMap<String, Arc<Service>>,
    pub checks: BTreeMap<String, Arc<Check>>,
}

impl Kept {
    pub(crate) fn take(&mut self, record: Record) {
        match record {
            Record::Index(index) => self.index = self.index.max(index),
            Record::Key(entry) => {
                self.index = self.index.max(entry.modify_index);
                self.keys.insert(entry.key.clone(), entry);
            }
            Record::KeyGone { key, index } => {
                self.keys.remove(&key);
                self.keys_gone = self.keys_gone.max(index);
            }
            Record::Session(session) => {
                self.index = self.index.max(session.modify_index);
                self.sessions.insert(session.id.clone(), session);
            }
            Record::SessionGone { id, index } => {
                self.sessions.remove(&id);
                self.sessions_gone = self.sessions_gone.max(index);
            }
            Record::Service(service) => {
                self.services.insert(service.id.clone(), service);
            }
            Record::ServiceGone(id) => {
                self.services.remove(&id);
                self.checks.retain(|_, (check, _)| check.service_id != id);
            }
            Record::Check { check, definition } => {
                self.checks.insert(check.id.clone(), (check, definition));
            }
            Record::CheckGone(id) => {
                self.checks.remove(&id);
            }
            Record::Node(node) => {
                self.index = self.index.max(node.modify_index);
                match self.nodes.entry(fold(&node.name)) {
                    btree_map::Entry::Occupied(mut known) => known.get_mut().node = node,
                    btree_map::Entry::Vacant(place) => {
                        place.insert(KeptNode {
                            node,
                            services: BTreeMap::new(),
                            checks: BTreeMap::new(),
                        });
                    }
                }
            }
            Record::NodeGone(name) => {
                self.nodes.remove(&fold(&name));
            }
            Record::NodeService { node, service } => {
                if let Some(node) = self.nodes.get_mut(&fold(&node)) {
                    node.services.insert(fold(&service.id), service);
                }
            }
            Record::NodeServiceGone { node, id } => {
                if let Some(node) = self.nodes.get_mut(&fold(&node)) {
                    let id = fold(&id);
                    node.services.remove(&id);
                    node.checks.retain(|_, check| fold(&check.service_id) != id);
                }
            }
            Record::NodeCheck(check) => {
                if let Some(node) = self.nodes.get_mut(&fold(&check.node)) {
                    node.checks.insert(fold(&check.id), check);
                }
            }
            Record::NodeCheckGone { node, id } => {
                if let Some(node) = self.nodes.get_mut(&fold(&node)) {
                    node.checks.remove(&fold(&id));
                }
            }
            Record::Found {
                check,
                status,
                output,
            } => {
                if let Some((check, _)) = self.checks.get_mut(&check) {
                    let check = Arc::make_mut(check);
                    check.status = status;
                    check.output = output;
                }
            }
        }
        self.index = self.index.max(self.keys_gone).max(self.sessions_gone);
    }
}
