//! What is kept: one row of the state, or that it is gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decode::CheckDefinition;
use crate::store::{Check, Entry, Service, Session, Status};

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
}

impl Kept {
    pub(super) fn take(&mut self, record: Record) {
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
