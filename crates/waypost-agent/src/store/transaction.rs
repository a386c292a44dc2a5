//! Several operations that happen together or not at all.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Changes, Entry, State};

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

impl State {
    /// Does all of the operations, or none if one fails. Returns what they found.
    pub(crate) fn transact(
        &mut self,
        operations: &[KvOperation],
        now: Instant,
        changes: &mut Changes,
    ) -> Result<Vec<Arc<Entry>>, Vec<OperationFault>> {
        let faults = each(operations, |operation| self.refuses(operation, now));
        if !faults.is_empty() {
            return Err(faults);
        }
        let before = changes.clone();
        let savepoint = self.kv.savepoint();
        let mut found = Vec::new();
        let faults = each(operations, |operation| {
            self.apply(operation, &mut found, changes).err()
        });
        if faults.is_empty() {
            self.kv.keep();
            return Ok(found);
        }
        self.kv.take_back(&savepoint);
        *changes = before;
        Err(faults)
    }

    /// What speaks against an operation before anything is done.
    fn refuses(&self, operation: &KvOperation, now: Instant) -> Option<String> {
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
        operation: &KvOperation,
        found: &mut Vec<Arc<Entry>>,
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
                found.push(present().ok_or_else(|| format!("key {key:?} doesn't exist"))?);
                return Ok(());
            }
            KvVerb::GetTree => {
                found.extend(self.kv.list(key).1);
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
        found.push(Arc::new(shown));
        Ok(())
    }
}

fn each(
    operations: &[KvOperation],
    mut fault: impl FnMut(&KvOperation) -> Option<String>,
) -> Vec<OperationFault> {
    let faults = operations.iter().enumerate().filter_map(|(i, operation)| {
        let what = fault(operation)?;
        Some(OperationFault { operation: i, what })
    });
    faults.collect()
}
