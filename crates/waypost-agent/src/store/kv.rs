//! The key-value table, and the locks on keys.
//!
//! The index of a key is that of its last change. The index of a list is the highest of its keys
//! and its tombstones: a tombstone records when a key was deleted, so that the index of a list
//! never goes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::changes::Changes;
use super::journal_record::JournalRecord;
use super::model::KvEntry;
use super::response_cache::SharedResponses;
use super::watch::Topic;

/// When there are more tombstones than this, the older half is dropped. Lists then have at least
/// the index of the newest dropped tombstone. This can wake a watcher unnecessarily, but no deletion is
/// missed.
const MAX_TOMBSTONES: usize = 16_384;

/// The longest lock delay.
const MAX_LOCK_DELAY: Duration = Duration::from_secs(60);

/// The keys and values.
#[derive(Debug, Default)]
pub(crate) struct Kv {
    index: u64,
    entries: BTreeMap<String, Arc<KvEntry>>,
    /// Pairs of a session and a key that it has locked.
    held_locks: BTreeSet<(String, String)>,
    /// The index at which a key or a prefix was deleted.
    tombstones: BTreeMap<String, u64>,
    /// The index of the newest dropped tombstone.
    dropped_tombstone_index: u64,
    /// When the lock delay of a key ends.
    lock_delays: HashMap<String, Instant>,
    shared_lists: SharedResponses<SharedListKey>,
    /// Set during a transaction.
    undo_log: Option<Vec<UndoRecord>>,
}

/// Identifies a serialized list of keys. Two lists of one prefix with the same index are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SharedListKey {
    pub prefix: String,
    pub pretty: bool,
    pub index: u64,
}

/// A key before it was changed.
#[derive(Debug)]
struct UndoRecord {
    key: String,
    entry: Option<Arc<KvEntry>>,
    tombstone: Option<u64>,
}

/// The state to which a transaction can be rolled back.
#[derive(Debug)]
pub(super) struct Savepoint {
    index: u64,
    dropped_tombstone_index: u64,
}

impl Kv {
    /// A key and its index. The index of a missing key is that of the table.
    pub(crate) fn get(&self, key: &str) -> (u64, Option<&Arc<KvEntry>>) {
        let entry = self.entries.get(key);
        (entry.map_or(self.index, |entry| entry.modify_index), entry)
    }

    /// The lists that are being sent.
    pub(crate) fn shared_lists(&self) -> &SharedResponses<SharedListKey> {
        &self.shared_lists
    }

    /// The keys with a prefix, sorted, and the index of the list.
    pub(crate) fn list(&self, prefix: &str) -> (u64, Vec<Arc<KvEntry>>) {
        let entries: Vec<_> = self.with_prefix(prefix).cloned().collect();
        if prefix.is_empty() {
            return (self.index, entries);
        }
        let newest = entries.iter().map(|entry| entry.modify_index).max();
        let deleted = range_with_prefix(&self.tombstones, prefix).map(|(_, index)| *index);
        let index = newest.max(deleted.max()).unwrap_or_default();
        let index = if index == 0 { self.index } else { index };
        (index.max(self.dropped_tombstone_index), entries)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<KvEntry>> {
        self.entries.values()
    }

    /// Sets a key and keeps its lock. Returns the new entry.
    pub(crate) fn set(&mut self, mut entry: KvEntry, changes: &mut Changes) -> Arc<KvEntry> {
        entry.session = match self.entries.get(&entry.key) {
            Some(old) => old.session.clone(),
            None => String::new(),
        };
        self.store(entry, changes)
    }

    /// Sets a key if its `modify_index` is `index`, where 0 stands for a missing key.
    pub(crate) fn set_if(
        &mut self,
        index: u64,
        entry: KvEntry,
        changes: &mut Changes,
    ) -> Option<Arc<KvEntry>> {
        let current = self.entries.get(&entry.key).map(|old| old.modify_index);
        (current.unwrap_or_default() == index && (index == 0) == current.is_none())
            .then(|| self.set(entry, changes))
    }

    /// Deletes a key if it exists.
    pub(crate) fn delete(&mut self, key: &str, changes: &mut Changes) {
        if self.entries.contains_key(key) {
            let index = changes.index();
            self.remove(key, changes);
            self.add_tombstone(key, index);
        }
    }

    /// Deletes a key if its `modify_index` is `index`. Returns whether the key is absent
    /// afterwards.
    pub(crate) fn delete_if(&mut self, index: u64, key: &str, changes: &mut Changes) -> bool {
        let current = self.entries.get(key).map(|old| old.modify_index);
        if current == Some(index) {
            self.delete(key, changes);
        }
        current.is_none_or(|current| current == index)
    }

    /// Deletes all keys with a prefix. They share one tombstone.
    pub(crate) fn delete_tree(&mut self, prefix: &str, changes: &mut Changes) {
        let keys: Vec<_> = self
            .with_prefix(prefix)
            .map(|entry| entry.key.clone())
            .collect();
        if keys.is_empty() {
            return;
        }
        let index = changes.index();
        for key in keys {
            self.remove(&key, changes);
        }
        if prefix.is_empty() {
            // A tombstone with an empty prefix would match no list.
            self.dropped_tombstone_index = index;
        } else {
            self.add_tombstone(prefix, index);
        }
    }

    /// Locks a key for `entry.session`. Returns `None` if another session holds the lock.
    pub(super) fn lock(
        &mut self,
        mut entry: KvEntry,
        changes: &mut Changes,
    ) -> Option<Arc<KvEntry>> {
        entry.lock_index = match self.entries.get(&entry.key) {
            None => 1,
            Some(old) if old.session == entry.session => old.lock_index,
            Some(old) if old.session.is_empty() => old.lock_index + 1,
            Some(_) => return None,
        };
        Some(self.store(entry, changes))
    }

    /// Unlocks a key for `entry.session`. Returns `None` if the session doesn't hold the lock.
    pub(super) fn unlock(
        &mut self,
        mut entry: KvEntry,
        changes: &mut Changes,
    ) -> Option<Arc<KvEntry>> {
        let old = self.entries.get(&entry.key)?;
        if old.session != entry.session {
            return None;
        }
        entry.lock_index = old.lock_index;
        entry.session.clear();
        Some(self.store(entry, changes))
    }

    /// Whether a lock can't be acquired yet because of the lock delay of an ended session.
    pub(crate) fn has_lock_delay(&self, key: &str, now: Instant) -> bool {
        self.lock_delays.get(key).is_some_and(|until| *until > now)
    }

    /// Releases the locks of an ended session, or deletes the locked keys. They can't be locked
    /// again for `delay`, so that the former holder can finish its work.
    pub(super) fn release_session(
        &mut self,
        session: &str,
        delete: bool,
        delay: Duration,
        now: Instant,
        changes: &mut Changes,
    ) {
        let first = (session.to_owned(), String::new());
        let keys: Vec<_> = self
            .held_locks
            .range(first..)
            .take_while(|(holder, _)| holder == session)
            .map(|(_, key)| key.clone())
            .collect();
        self.lock_delays.retain(|_, until| *until > now);
        for key in keys {
            if delete {
                self.delete(&key, changes);
            } else if let Some(entry) = self.entries.get(&key) {
                let mut entry = KvEntry::clone(entry);
                entry.session.clear();
                self.store(entry, changes);
            }
            if !delay.is_zero() {
                self.lock_delays
                    .insert(key, now + delay.min(MAX_LOCK_DELAY));
            }
        }
    }

    /// Starts a transaction, which ends with [`Kv::commit`] or [`Kv::roll_back`].
    pub(super) fn savepoint(&mut self) -> Savepoint {
        self.undo_log = Some(Vec::new());
        Savepoint {
            index: self.index,
            dropped_tombstone_index: self.dropped_tombstone_index,
        }
    }

    pub(super) fn commit(&mut self) {
        self.undo_log = None;
    }

    pub(super) fn roll_back(&mut self, to: &Savepoint) {
        for undo in self.undo_log.take().into_iter().flatten().rev() {
            match undo.entry {
                Some(entry) => self.insert_entry(entry),
                None => self.remove_entry(&undo.key),
            }
            match undo.tombstone {
                Some(index) => self.tombstones.insert(undo.key, index),
                None => self.tombstones.remove(&undo.key),
            };
        }
        self.index = to.index;
        self.dropped_tombstone_index = to.dropped_tombstone_index;
    }

    /// Restores an entry after a restart.
    pub(super) fn restore(&mut self, entry: Arc<KvEntry>) {
        self.index = self.index.max(entry.modify_index);
        self.insert_entry(entry);
    }

    /// Sets a key to an earlier value, or deletes it, without journaling that. The indexes of the
    /// lists with the key rise.
    pub(super) fn set_to(
        &mut self,
        key: &str,
        entry: Option<&Arc<KvEntry>>,
        changes: &mut Changes,
    ) {
        match entry {
            Some(entry) => self.insert_entry(Arc::clone(entry)),
            None => self.remove_entry(key),
        }
        self.index = changes.index();
        self.add_tombstone(key, self.index);
        changes.touch(Topic::Key(key.to_owned()));
    }

    /// Restores the index of the newest tombstone after a restart.
    pub(super) fn restore_tombstones(&mut self, newest: u64) {
        self.index = self.index.max(newest);
        self.dropped_tombstone_index = newest;
    }

    /// The index at which the last key was deleted.
    pub(super) fn newest_tombstone(&self) -> u64 {
        let newest = self.tombstones.values().copied().max();
        newest.unwrap_or_default().max(self.dropped_tombstone_index)
    }

    fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = &Arc<KvEntry>> {
        range_with_prefix(&self.entries, prefix).map(|(_, entry)| entry)
    }

    /// Stores an entry and sets its indexes. An unchanged entry keeps them.
    fn store(&mut self, mut entry: KvEntry, changes: &mut Changes) -> Arc<KvEntry> {
        if let Some(old) = self.entries.get(&entry.key) {
            entry.create_index = old.create_index;
            entry.modify_index = old.modify_index;
            if **old == entry {
                return Arc::clone(old);
            }
        } else {
            entry.create_index = changes.index();
        }
        entry.modify_index = changes.index();
        self.index = entry.modify_index;
        self.log_undo(&entry.key);
        let entry = Arc::new(entry);
        self.insert_entry(Arc::clone(&entry));
        changes.touch(Topic::Key(entry.key.clone()));
        changes.record(|| JournalRecord::Key(Arc::clone(&entry)));
        entry
    }

    fn remove(&mut self, key: &str, changes: &mut Changes) {
        self.log_undo(key);
        self.remove_entry(key);
        self.index = changes.index();
        changes.touch(Topic::Key(key.to_owned()));
        let index = self.index;
        changes.record(|| JournalRecord::KeyDeleted {
            key: key.to_owned(),
            index,
        });
    }

    fn add_tombstone(&mut self, key: &str, index: u64) {
        self.log_undo(key);
        self.tombstones.insert(key.to_owned(), index);
        if self.tombstones.len() > MAX_TOMBSTONES {
            let mut indexes: Vec<_> = self.tombstones.values().copied().collect();
            let (_, median, _) = indexes.select_nth_unstable(MAX_TOMBSTONES / 2);
            self.dropped_tombstone_index = self.dropped_tombstone_index.max(*median);
            self.tombstones
                .retain(|_, index| *index > self.dropped_tombstone_index);
        }
    }

    fn log_undo(&mut self, key: &str) {
        if let Some(undo_log) = &mut self.undo_log {
            undo_log.push(UndoRecord {
                key: key.to_owned(),
                entry: self.entries.get(key).cloned(),
                tombstone: self.tombstones.get(key).copied(),
            });
        }
    }

    fn insert_entry(&mut self, entry: Arc<KvEntry>) {
        self.remove_entry(&entry.key);
        if !entry.session.is_empty() {
            let held = (entry.session.clone(), entry.key.clone());
            self.held_locks.insert(held);
        }
        self.entries.insert(entry.key.clone(), entry);
    }

    fn remove_entry(&mut self, key: &str) {
        if let Some(old) = self.entries.remove(key)
            && !old.session.is_empty()
        {
            self.held_locks
                .remove(&(old.session.clone(), key.to_owned()));
        }
    }
}

fn range_with_prefix<'a, T>(
    map: &'a BTreeMap<String, T>,
    prefix: &str,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    let prefix = prefix.to_owned();
    map.range::<str, _>(from)
        .take_while(move |(key, _)| key.starts_with(&prefix))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn with_many_deleted_keys_the_older_half_of_the_tombstones_is_dropped_and_no_index_goes_back() {
        let mut kv = Kv::default();
        let mut index = 0;
        let mut write = |kv: &mut Kv, change: &dyn Fn(&mut Kv, &mut Changes)| {
            let mut changes = Changes::new(index, false, SystemTime::UNIX_EPOCH);
            change(kv, &mut changes);
            index = changes.last_index();
            index
        };
        let mut deleted = Vec::new();
        for number in 0..=MAX_TOMBSTONES {
            let key = format!("{number:05}");
            let entry = KvEntry {
                key: key.clone(),
                ..KvEntry::default()
            };
            write(&mut kv, &|kv, changes| drop(kv.set(entry.clone(), changes)));
            let index = write(&mut kv, &|kv, changes| kv.delete(&key, changes));
            deleted.push((key, index));
        }
        assert_eq!(kv.tombstones.len(), MAX_TOMBSTONES / 2);
        for (key, index) in deleted.iter().step_by(1_000) {
            assert!(kv.list(key).0 >= *index, "{key}");
        }
        // Not the last one, whose index is also that of the whole table.
        let (key, index) = &deleted[MAX_TOMBSTONES - 1];
        assert_eq!(kv.list(key).0, *index);
    }
}
