//! Operations on keys.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::changes::Changes;
use super::super::kv::Kv;
use super::super::model::KvEntry;
use super::super::state::State;

/// An operation on a key.
#[derive(Clone, Debug, Default)]
pub(crate) struct KvOperation {
    pub verb: String,
    pub entry: KvEntry,
    /// The `modify_index` that some verbs require.
    pub index: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KvVerb {
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

impl KvVerb {
    fn parse(text: &str) -> Option<Self> {
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

    fn is_read(self) -> bool {
        use KvVerb::{CheckIndex, CheckNotExists, CheckSession, Get, GetTree};
        matches!(
            self,
            CheckIndex | CheckNotExists | CheckSession | Get | GetTree
        )
    }
}

impl KvOperation {
    pub(super) fn is_read(&self) -> bool {
        KvVerb::parse(&self.verb).is_none_or(KvVerb::is_read)
    }

    pub(super) fn validate(&self, kv: &Kv, now: Instant) -> Result<(), String> {
        let Some(verb) = KvVerb::parse(&self.verb) else {
            return Ok(());
        };
        let key = &self.entry.key;
        if verb.is_read() {
            Ok(())
        } else if key.is_empty() && verb != KvVerb::DeleteTree {
            Err("Must provide key".to_owned())
        } else if verb == KvVerb::Lock && kv.has_lock_delay(key, now.into_std()) {
            Err(format!("failed to lock key {key:?} due to lock delay"))
        } else {
            Ok(())
        }
    }

    /// Returns the entries that it has read or written.
    pub(super) fn apply(
        &self,
        state: &mut State,
        changes: &mut Changes,
    ) -> Result<Vec<Arc<KvEntry>>, String> {
        let Self { verb, entry, index } = self;
        let key = entry.key.as_str();
        let verb = KvVerb::parse(verb).ok_or_else(|| format!("unknown KV verb {verb:?}"))?;
        let current = || state.kv.get(key).1.cloned();
        let result = match verb {
            KvVerb::Set => state.kv.set(entry.clone(), changes),
            KvVerb::Cas => state
                .kv
                .set_if(*index, entry.clone(), changes)
                .ok_or_else(|| format!("failed to set key {key:?}, index is stale"))?,
            KvVerb::Lock => state
                .lock(entry.clone(), changes)?
                .ok_or_else(|| format!("failed to lock key {key:?}, lock is already held"))?,
            KvVerb::Unlock => state.unlock(entry.clone(), changes)?.ok_or_else(|| {
                format!(
                    "failed to unlock key {key:?}, lock isn't held, or is held by another session"
                )
            })?,
            KvVerb::Get => {
                let entry = current().ok_or_else(|| format!("key {key:?} doesn't exist"))?;
                return Ok(vec![entry]);
            }
            KvVerb::GetTree => return Ok(state.kv.list(key).1),
            KvVerb::CheckIndex => {
                let entry = current()
                    .ok_or_else(|| format!("failed to check index, key {key:?} doesn't exist"))?;
                let actual = entry.modify_index;
                if actual != *index {
                    return Err(format!(
                        "failed index check for key {key:?}, current modify index {actual} != \
                         {index}"
                    ));
                }
                entry
            }
            KvVerb::CheckSession => {
                let current = current()
                    .ok_or_else(|| format!("failed to check session, key {key:?} doesn't exist"))?;
                let (actual, expected) = (&current.session, &entry.session);
                if actual != expected {
                    return Err(format!(
                        "failed session check for key {key:?}, current session {actual:?} != \
                         {expected:?}"
                    ));
                }
                current
            }
            KvVerb::CheckNotExists => {
                return match current() {
                    Some(_) => Err(format!("key {key:?} exists")),
                    None => Ok(Vec::new()),
                };
            }
            KvVerb::Delete => {
                state.kv.delete(key, changes);
                return Ok(Vec::new());
            }
            KvVerb::DeleteCas => {
                let is_absent = state.kv.delete_if(*index, key, changes);
                let stale = || format!("failed to delete key {key:?}, index is stale");
                return is_absent.then(Vec::new).ok_or_else(stale);
            }
            KvVerb::DeleteTree => {
                state.kv.delete_tree(key, changes);
                return Ok(Vec::new());
            }
        };
        // Only `get` and `get-tree` return values.
        let mut result = KvEntry::clone(&result);
        result.value.clear();
        Ok(vec![Arc::new(result)])
    }
}
