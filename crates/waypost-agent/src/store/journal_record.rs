//! The records of the journal: a changed row, or the removal of one. Their names are part of the
//! file format.

use std::collections::{BTreeMap, btree_map};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::case_folding::fold_case;
use super::model::{Check, CheckStatus, KvEntry, Node, Service, Session};
use crate::store::CheckDefinition;

/// A change of one row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum JournalRecord {
    /// The index of the write that the preceding records belong to.
    Index(u64),
    Key(Arc<KvEntry>),
    #[serde(rename = "KeyGone")]
    KeyDeleted {
        key: String,
        index: u64,
    },
    Session(Arc<Session>),
    #[serde(rename = "SessionGone")]
    SessionEnded {
        id: String,
        index: u64,
    },
    /// A service of this agent.
    Service(Arc<Service>),
    #[serde(rename = "ServiceGone")]
    ServiceRemoved(String),
    /// A check of this agent, and its definition. A maintenance check has none.
    Check {
        check: Arc<Check>,
        definition: Option<Arc<CheckDefinition>>,
    },
    #[serde(rename = "CheckGone")]
    CheckRemoved(String),
    /// The result of a check of this agent.
    #[serde(rename = "Found")]
    CheckResult {
        check: String,
        status: CheckStatus,
        output: String,
    },
    /// A node other than this agent's.
    Node(Arc<Node>),
    #[serde(rename = "NodeGone")]
    NodeRemoved(String),
    NodeService {
        node: String,
        service: Arc<Service>,
    },
    #[serde(rename = "NodeServiceGone")]
    NodeServiceRemoved {
        node: String,
        id: String,
    },
    NodeCheck(Arc<Check>),
    #[serde(rename = "NodeCheckGone")]
    NodeCheckRemoved {
        node: String,
        id: String,
    },
}

/// The rows that remain after all records of a journal have been applied.
#[derive(Debug, Default)]
pub(crate) struct RestoredState {
    pub index: u64,
    pub keys: BTreeMap<String, Arc<KvEntry>>,
    /// The index at which the last key was deleted.
    pub last_key_deletion: u64,
    pub sessions: BTreeMap<String, Arc<Session>>,
    /// The index at which the last session ended.
    pub last_session_end: u64,
    pub services: BTreeMap<String, Arc<Service>>,
    pub checks: BTreeMap<String, (Arc<Check>, Option<Arc<CheckDefinition>>)>,
    /// The nodes other than this agent's, by case-folded name.
    pub nodes: BTreeMap<String, RestoredNode>,
}

/// A node other than this agent's, with its services and checks by case-folded id.
#[derive(Debug)]
pub(crate) struct RestoredNode {
    pub node: Arc<Node>,
    pub services: BTreeMap<String, Arc<Service>>,
    pub checks: BTreeMap<String, Arc<Check>>,
}

impl RestoredState {
    pub(crate) fn apply(&mut self, record: JournalRecord) {
        match record {
            JournalRecord::Index(index) => self.index = self.index.max(index),
            JournalRecord::Key(entry) => {
                self.index = self.index.max(entry.modify_index);
                self.keys.insert(entry.key.clone(), entry);
            }
            JournalRecord::KeyDeleted { key, index } => {
                self.keys.remove(&key);
                self.last_key_deletion = self.last_key_deletion.max(index);
            }
            JournalRecord::Session(session) => {
                self.index = self.index.max(session.modify_index);
                self.sessions.insert(session.id.clone(), session);
            }
            JournalRecord::SessionEnded { id, index } => {
                self.sessions.remove(&id);
                self.last_session_end = self.last_session_end.max(index);
            }
            JournalRecord::Service(service) => {
                self.services.insert(service.id.clone(), service);
            }
            JournalRecord::ServiceRemoved(id) => {
                self.services.remove(&id);
                self.checks.retain(|_, (check, _)| check.service_id != id);
            }
            JournalRecord::Check { check, definition } => {
                self.checks.insert(check.id.clone(), (check, definition));
            }
            JournalRecord::CheckRemoved(id) => {
                self.checks.remove(&id);
            }
            JournalRecord::CheckResult {
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
            JournalRecord::Node(node) => {
                self.index = self.index.max(node.modify_index);
                match self.nodes.entry(fold_case(&node.name)) {
                    btree_map::Entry::Occupied(mut known) => known.get_mut().node = node,
                    btree_map::Entry::Vacant(vacant) => {
                        vacant.insert(RestoredNode {
                            node,
                            services: BTreeMap::new(),
                            checks: BTreeMap::new(),
                        });
                    }
                }
            }
            JournalRecord::NodeRemoved(name) => {
                self.nodes.remove(&fold_case(&name));
            }
            JournalRecord::NodeService { node, service } => {
                if let Some(node) = self.nodes.get_mut(&fold_case(&node)) {
                    node.services.insert(fold_case(&service.id), service);
                }
            }
            JournalRecord::NodeServiceRemoved { node, id } => {
                if let Some(node) = self.nodes.get_mut(&fold_case(&node)) {
                    let id = fold_case(&id);
                    node.services.remove(&id);
                    node.checks
                        .retain(|_, check| fold_case(&check.service_id) != id);
                }
            }
            JournalRecord::NodeCheck(check) => {
                if let Some(node) = self.nodes.get_mut(&fold_case(&check.node)) {
                    node.checks.insert(fold_case(&check.id), check);
                }
            }
            JournalRecord::NodeCheckRemoved { node, id } => {
                if let Some(node) = self.nodes.get_mut(&fold_case(&node)) {
                    node.checks.remove(&fold_case(&id));
                }
            }
        }
        self.index = self
            .index
            .max(self.last_key_deletion)
            .max(self.last_session_end);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_keep_their_names_in_the_file() {
        let id = || "a".to_owned();
        for (record, expected) in [
            (
                JournalRecord::KeyDeleted {
                    key: id(),
                    index: 1,
                },
                json!({"KeyGone": {"key": "a", "index": 1}}),
            ),
            (
                JournalRecord::SessionEnded { id: id(), index: 1 },
                json!({"SessionGone": {"id": "a", "index": 1}}),
            ),
            (
                JournalRecord::ServiceRemoved(id()),
                json!({"ServiceGone": "a"}),
            ),
            (JournalRecord::CheckRemoved(id()), json!({"CheckGone": "a"})),
            (
                JournalRecord::CheckResult {
                    check: id(),
                    status: CheckStatus::Warning,
                    output: String::new(),
                },
                json!({"Found": {"check": "a", "status": "warning", "output": ""}}),
            ),
            (JournalRecord::NodeRemoved(id()), json!({"NodeGone": "a"})),
            (
                JournalRecord::NodeServiceRemoved {
                    node: id(),
                    id: id(),
                },
                json!({"NodeServiceGone": {"node": "a", "id": "a"}}),
            ),
            (
                JournalRecord::NodeCheckRemoved {
                    node: id(),
                    id: id(),
                },
                json!({"NodeCheckGone": {"node": "a", "id": "a"}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(record).unwrap(), expected);
        }
    }
}
