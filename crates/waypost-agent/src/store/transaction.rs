//! Several operations that happen together or not at all.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Changes, Check, Entry, Node, Service, State, WHEREVER};
use crate::ids;

/// One of the operations. The index that some verbs want a row to have is its `modify_index`.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Key(KvOperation),
    Node {
        verb: String,
        node: Node,
    },
    Service {
        verb: String,
        node: String,
        service: Service,
    },
    Check {
        verb: String,
        check: Check,
    },
}

/// What an operation shows of what it found or made.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Key(Arc<Entry>),
    Node(Arc<Node>),
    Service(Arc<Service>),
    Check(Arc<Check>),
}

/// An operation on a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KvOperation {
    pub verb: String,
    pub entry: Entry,
    /// The index that some verbs want the key to have.
    pub index: u64,
}

/// What can be done to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KvVerb {
    Set,
    Cas,
    Lock,
    Unlock,
    Get,
    GetTree,
    CheckIndex,
    CheckSession,
    CheckNotExists,
    Delete,
    DeleteCas,
    DeleteTree,
}

/// Why an operation can't be done, and which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperationFault {
    pub operation: usize,
    pub what: String,
}

impl KvVerb {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "set" => Self::Set,
            "cas" => Self::Cas,
            "lock" => Self::Lock,
            "unlock" => Self::Unlock,
            "get" => Self::Get,
            "get-tree" => Self::GetTree,
            "check-index" => Self::CheckIndex,
            "check-session" => Self::CheckSession,
            "check-not-exists" => Self::CheckNotExists,
            "delete" => Self::Delete,
            "delete-cas" => Self::DeleteCas,
            "delete-tree" => Self::DeleteTree,
            _ => return None,
        })
    }

    /// Whether it only looks.
    pub(crate) fn is_read(self) -> bool {
        use KvVerb::{CheckIndex, CheckNotExists, CheckSession, Get, GetTree};
        matches!(
            self,
            CheckIndex | CheckNotExists | CheckSession | Get | GetTree
        )
    }
}

impl Operation {
    /// Whether it writes what this registry doesn't serve.
    pub(crate) fn is_of_mesh(&self) -> bool {
        matches!(self, Self::Service { service, .. } if service.is_of_mesh()) && !self.is_read()
    }

    /// Whether it only looks. A verb for keys that is unknown writes nothing.
    pub(crate) fn is_read(&self) -> bool {
        match self {
            Self::Key(operation) => KvVerb::parse(&operation.verb).is_none_or(KvVerb::is_read),
            Self::Node { verb, .. } | Self::Service { verb, .. } | Self::Check { verb, .. } => {
                verb == "get"
            }
        }
    }
}

impl State {
    /// Does all of the operations, or none if one fails. Returns what they found.
    pub(crate) fn transact(
        &mut self,
        operations: &[Operation],
        now: Instant,
        changes: &mut Changes,
    ) -> Result<Vec<Shown>, Vec<OperationFault>> {
        let faults = each(operations, |operation| self.refuses(operation, now));
        if !faults.is_empty() {
            return Err(faults);
        }
        let before = changes.clone();
        let savepoint = self.kv.savepoint();
        let writes_catalog =
            |operation: &Operation| !matches!(operation, Operation::Key(_)) && !operation.is_read();
        let catalog = operations.iter().any(writes_catalog);
        let catalog = catalog.then(|| self.catalog.clone());
        let mut found = Vec::new();
        let faults = each(operations, |operation| {
            self.apply(operation, &mut found, changes).err()
        });
        if faults.is_empty() {
            self.kv.keep();
            return Ok(found);
        }
        self.kv.take_back(&savepoint);
        if let Some(catalog) = catalog {
            self.catalog = catalog;
        }
        *changes = before;
        Err(faults)
    }

    /// What speaks against an operation before anything is done.
    fn refuses(&self, operation: &Operation, now: Instant) -> Option<String> {
        match operation {
            Operation::Key(operation) => self.refuses_key(operation, now),
            operation if operation.is_read() => None,
            Operation::Node { node, .. } if node.name.is_empty() => {
                Some("Must provide node".to_owned())
            }
            Operation::Node { node, .. } => {
                let error = ids::check_node_id(&node.id).err()?;
                Some(format!("Bad node ID: {error}"))
            }
            Operation::Service { service, .. } => {
                if service.name.is_empty() && !service.id.is_empty() {
                    Some("Must provide service name with ID".to_owned())
                } else if WHEREVER.contains(&service.address.as_str()) {
                    Some("Invalid service address".to_owned())
                } else {
                    None
                }
            }
            Operation::Check { .. } => None,
        }
    }

    fn refuses_key(&self, operation: &KvOperation, now: Instant) -> Option<String> {
        let verb = KvVerb::parse(&operation.verb)?;
        let key = &operation.entry.key;
        if verb.is_read() {
            None
        } else if key.is_empty() && verb != KvVerb::DeleteTree {
            Some("Must provide key".to_owned())
        } else if verb == KvVerb::Lock && self.kv.is_closed(key, now.into_std()) {
            Some(format!("failed to lock key {key:?} due to lock delay"))
        } else {
            None
        }
    }

    fn apply(
        &mut self,
        operation: &Operation,
        found: &mut Vec<Shown>,
        changes: &mut Changes,
    ) -> Result<(), String> {
        let catalog = &mut self.catalog;
        let shown = match operation {
            Operation::Key(operation) => return self.apply_key(operation, found, changes),
            Operation::Node { verb, node } => {
                let node = catalog.transact_node(verb, node.clone(), changes)?;
                node.map(Shown::Node)
            }
            Operation::Service {
                verb,
                node,
                service,
            } => {
                let service = catalog.transact_service(verb, node, service.clone(), changes)?;
                service.map(Shown::Service)
            }
            Operation::Check { verb, check } => {
                let check = catalog.transact_check(verb, check.clone(), changes)?;
                check.map(Shown::Check)
            }
        };
        found.extend(shown);
        Ok(())
    }

    fn apply_key(
        &mut self,
        operation: &KvOperation,
        found: &mut Vec<Shown>,
        changes: &mut Changes,
    ) -> Result<(), String> {
        let KvOperation { verb, entry, index } = operation;
        let key = entry.key.as_str();
        let parsed = KvVerb::parse(verb).ok_or_else(|| format!("unknown KV verb {verb:?}"))?;
        let present = || self.kv.get(key).1.cloned();
        let shown = match parsed {
            KvVerb::Set => self.kv.set(entry.clone(), changes),
            KvVerb::Cas => self
                .kv
                .set_if(*index, entry.clone(), changes)
                .ok_or_else(|| format!("failed to set key {key:?}, index is stale"))?,
            KvVerb::Lock => self
                .lock(entry.clone(), changes)?
                .ok_or_else(|| format!("failed to lock key {key:?}, lock is already held"))?,
            KvVerb::Unlock => self.unlock(entry.clone(), changes)?.ok_or_else(|| {
                format!(
                    "failed to unlock key {key:?}, lock isn't held, or is held by another session"
                )
            })?,
            KvVerb::Get => {
                let entry = present().ok_or_else(|| format!("key {key:?} doesn't exist"))?;
                found.push(Shown::Key(entry));
                return Ok(());
            }
            KvVerb::GetTree => {
                found.extend(self.kv.list(key).1.into_iter().map(Shown::Key));
                return Ok(());
            }
            KvVerb::CheckIndex => {
                let entry = present()
                    .ok_or_else(|| format!("failed to check index, key {key:?} doesn't exist"))?;
                let is = entry.modify_index;
                if is != *index {
                    return Err(format!(
                        "failed index check for key {key:?}, current modify index {is} != {index}"
                    ));
                }
                entry
            }
            KvVerb::CheckSession => {
                let present = present()
                    .ok_or_else(|| format!("failed to check session, key {key:?} doesn't exist"))?;
                let (is, wanted) = (&present.session, &entry.session);
                if is != wanted {
                    return Err(format!(
                        "failed session check for key {key:?}, current session {is:?} != {wanted:?}"
                    ));
                }
                present
            }
            KvVerb::CheckNotExists => {
                return match present() {
                    Some(_) => Err(format!("key {key:?} exists")),
                    None => Ok(()),
                };
            }
            KvVerb::Delete => {
                self.kv.delete(key, changes);
                return Ok(());
            }
            KvVerb::DeleteCas => {
                let is_gone = self.kv.delete_if(*index, key, changes);
                let stale = || format!("failed to delete key {key:?}, index is stale");
                return is_gone.then_some(()).ok_or_else(stale);
            }
            KvVerb::DeleteTree => {
                self.kv.delete_tree(key, changes);
                return Ok(());
            }
        };
        // Only those who ask for values are shown them.
        let mut shown = Entry::clone(&shown);
        shown.value.clear();
        found.push(Shown::Key(Arc::new(shown)));
        Ok(())
    }
}

fn each(
    operations: &[Operation],
    mut fault: impl FnMut(&Operation) -> Option<String>,
) -> Vec<OperationFault> {
    let faults = operations.iter().enumerate().filter_map(|(i, operation)| {
        let what = fault(operation)?;
        Some(OperationFault { operation: i, what })
    });
    faults.collect()
}
