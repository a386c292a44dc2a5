//! Keys and values.
//!
//! The index of one key is its own. The index of a list is the highest of its keys and of its
//! graves: a grave remembers when a key was deleted, so that the index of a list never goes back.

mod locks;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};

use super::{Changes, Record, Topic};

/// More graves than this are forgotten, the oldest first; their lists then get the index at which
/// the last of them was dug, which may wake a watcher for nothing but never misses one.
const MOST_GRAVES: usize = 16_384;

/// A key with its value, as Consul shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    /// How often the key has been locked by another session than before.
    pub lock_index: u64,
    pub key: String,
    pub flags: u64,
    #[serde(serialize_with = "base64", deserialize_with = "from_base64")]
    pub value: Bytes,
    /// Who holds the lock; empty if nobody.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session: String,
    pub create_index: u64,
    pub modify_index: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Kv {
    index: u64,
    entries: BTreeMap<String, Arc<Entry>>,
    /// Sessions and the keys they hold.
    held: BTreeSet<(String, String)>,
    graves: BTreeMap<String, u64>,
    /// The newest grave that has been forgotten.
    forgotten: u64,
    /// Locks that stay closed for a while, and until when.
    closed: HashMap<String, Instant>,
    /// What a transaction has changed: key, entry and grave as they were.
    undo: Option<Vec<Before>>,
}

type Before = (String, Option<Arc<Entry>>, Option<u64>);

/// Where to go back to.
#[derive(Debug)]
pub(crate) struct Savepoint {
    index: u64,
    forgotten: u64,
}

// === Reading ===

impl Kv {
    /// A key, and the index at which that was true.
    pub(crate) fn get(&self, key: &str) -> (u64, Option<&Arc<Entry>>) {
        let entry = self.entries.get(key);
        (entry.map_or(self.index, |entry| entry.modify_index), entry)
    }

    /// The keys that start with `prefix`, in order, and the index of the list.
    pub(crate) fn list(&self, prefix: &str) -> (u64, Vec<Arc<Entry>>) {
        let entries: Vec<_> = self.under(prefix).cloned().collect();
        if prefix.is_empty() {
            return (self.index, entries);
        }
        let newest = entries.iter().map(|entry| entry.modify_index).max();
        let graves = starting_with(&self.graves, prefix).map(|(_, index)| *index);
        let index = newest.max(graves.max()).unwrap_or_default();
        let index = if index == 0 { self.index } else { index };
        (index.max(self.forgotten), entries)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    fn under(&self, prefix: &str) -> impl Iterator<Item = &Arc<Entry>> {
        starting_with(&self.entries, prefix).map(|(_, entry)| entry)
    }
}

// === Writing ===

impl Kv {
    /// Sets a key. A lock on it stays. Returns the entry as it is then.
    pub(crate) fn set(&mut self, mut entry: Entry, changes: &mut Changes) -> Arc<Entry> {
        entry.session = match self.entries.get(&entry.key) {
            Some(old) => old.session.clone(),
            None => String::new(),
        };
        self.store(entry, changes)
    }

    /// Sets a key if it was last modified at `index`; 0 is if there is none.
    pub(crate) fn set_if(
        &mut self,
        index: u64,
        entry: Entry,
        changes: &mut Changes,
    ) -> Option<Arc<Entry>> {
        let is = self.entries.get(&entry.key).map(|old| old.modify_index);
        (is.unwrap_or_default() == index && (index == 0) == is.is_none())
            .then(|| self.set(entry, changes))
    }

    /// Removes a key, if it is there.
    pub(crate) fn delete(&mut self, key: &str, changes: &mut Changes) {
        if self.entries.contains_key(key) {
            let index = changes.index();
            self.remove(key, changes);
            self.dig(key, index);
        }
    }

    /// Removes a key if it was last modified at `index`; whether it is gone now.
    pub(crate) fn delete_if(&mut self, index: u64, key: &str, changes: &mut Changes) -> bool {
        let is = self.entries.get(key).map(|old| old.modify_index);
        if is == Some(index) {
            self.delete(key, changes);
        }
        is.is_none_or(|is| is == index)
    }

    /// Removes all keys that start with `prefix`. They share a grave.
    pub(crate) fn delete_tree(&mut self, prefix: &str, changes: &mut Changes) {
        let keys: Vec<_> = self.under(prefix).map(|entry| entry.key.clone()).collect();
        if keys.is_empty() {
            return;
        }
        let index = changes.index();
        for key in keys {
            self.remove(&key, changes);
        }
        if prefix.is_empty() {
            // No grave holds all keys; older ones must not make a list's index go back.
            self.forgotten = index;
        } else {
            self.dig(prefix, index);
        }
    }

    /// Puts an entry where it was before a restart.
    pub(super) fn restore(&mut self, entry: Arc<Entry>) {
        self.index = self.index.max(entry.modify_index);
        self.place(entry);
    }

    /// Takes up the index again at which a key was deleted before a restart.
    pub(super) fn restore_graves(&mut self, newest: u64) {
        self.index = self.index.max(newest);
        self.forgotten = newest;
    }

    /// The index at which the last key was deleted.
    pub(super) fn newest_grave(&self) -> u64 {
        let newest = self.graves.values().copied().max();
        newest.unwrap_or_default().max(self.forgotten)
    }

    /// From here on everything can be taken back.
    pub(super) fn savepoint(&mut self) -> Savepoint {
        self.undo = Some(Vec::new());
        Savepoint {
            index: self.index,
            forgotten: self.forgotten,
        }
    }

    pub(super) fn keep(&mut self) {
        self.undo = None;
    }

    pub(super) fn take_back(&mut self, to: &Savepoint) {
        for (key, entry, grave) in self.undo.take().into_iter().flatten().rev() {
            match entry {
                Some(entry) => self.place(entry),
                None => self.take(&key),
            }
            match grave {
                Some(index) => self.graves.insert(key, index),
                None => self.graves.remove(&key),
            };
        }
        self.index = to.index;
        self.forgotten = to.forgotten;
    }

    /// Stores an entry, unless it is there just so.
    fn store(&mut self, mut entry: Entry, changes: &mut Changes) -> Arc<Entry> {
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
        self.remember(&entry.key);
        let entry = Arc::new(entry);
        self.place(Arc::clone(&entry));
        changes.touch(Topic::Key(entry.key.clone()));
        changes.record(|| Record::Key(Arc::clone(&entry)));
        entry
    }

    fn remove(&mut self, key: &str, changes: &mut Changes) {
        self.remember(key);
        self.take(key);
        self.index = changes.index();
        changes.touch(Topic::Key(key.to_owned()));
        let index = self.index;
        changes.record(|| Record::KeyGone {
            key: key.to_owned(),
            index,
        });
    }

    fn dig(&mut self, key: &str, index: u64) {
        self.remember(key);
        self.graves.insert(key.to_owned(), index);
        if self.graves.len() > MOST_GRAVES {
            let mut ages: Vec<_> = self.graves.values().copied().collect();
            let (_, middle, _) = ages.select_nth_unstable(MOST_GRAVES / 2);
            self.forgotten = self.forgotten.max(*middle);
            self.graves.retain(|_, index| *index > self.forgotten);
        }
    }

    fn remember(&mut self, key: &str) {
        if let Some(undo) = &mut self.undo {
            let before = self.entries.get(key).cloned();
            undo.push((key.to_owned(), before, self.graves.get(key).copied()));
        }
    }

    fn place(&mut self, entry: Arc<Entry>) {
        self.take(&entry.key);
        if !entry.session.is_empty() {
            let held = (entry.session.clone(), entry.key.clone());
            self.held.insert(held);
        }
        self.entries.insert(entry.key.clone(), entry);
    }

    fn take(&mut self, key: &str) {
        if let Some(old) = self.entries.remove(key)
            && !old.session.is_empty()
        {
            self.held.remove(&(old.session.clone(), key.to_owned()));
        }
    }
}

fn starting_with<'a, T>(
    map: &'a BTreeMap<String, T>,
    prefix: &str,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    let from = (Bound::Included(prefix), Bound::Unbounded);
    let prefix = prefix.to_owned();
    map.range::<str, _>(from)
        .take_while(move |(key, _)| key.starts_with(&prefix))
}

/// Bytes as Go shows them: none are `null`.
fn base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.is_empty() {
        return serializer.serialize_none();
    }
    serializer.serialize_str(&data_encoding::BASE64.encode(bytes))
}

fn from_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let bytes = data_encoding::BASE64.decode(text.as_bytes());
    bytes.map(Bytes::from).map_err(serde::de::Error::custom)
}
