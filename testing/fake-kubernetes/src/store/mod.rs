//! What etcd and the watch cache are in a cluster: the objects at their revisions, and the last
//! changes.

mod object;
mod selector;
mod window;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::kinds::{KINDS, Kind};
pub(crate) use object::{Key, Object};
pub(crate) use selector::Selector;
pub(crate) use window::Change;
use window::Window;

/// All objects of one kind.
type Objects = BTreeMap<Key, Arc<Object>>;

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    state: Mutex<State>,
    /// Wakes the watches of each kind.
    wake: Vec<watch::Sender<()>>,
}

/// What is in it.
#[derive(Debug)]
pub(crate) struct State {
    revision: u64,
    kinds: Vec<Collection>,
}

#[derive(Debug)]
struct Collection {
    objects: Objects,
    window: Window,
}

/// All objects as they were at one revision, as a snapshot of etcd.
#[derive(Clone, Debug)]
pub struct Backup {
    revision: u64,
    kinds: Vec<Objects>,
}

impl Backup {
    /// The revision that it was taken at.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Store {
    pub(crate) fn new() -> Self {
        let collection = || Collection {
            objects: Objects::new(),
            window: Window::starting_at(1),
        };
        Self {
            state: Mutex::new(State {
                revision: 1,
                kinds: KINDS.iter().map(|_| collection()).collect(),
            }),
            wake: KINDS.iter().map(|_| watch::Sender::new(())).collect(),
        }
    }

    pub(crate) fn read(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signals after every change of the kind.
    pub(crate) fn changes(&self, kind: &Kind) -> watch::Receiver<()> {
        self.wake[kind.index()].subscribe()
    }

    /// Puts an object in the place of what is there. `value` lacks only its revision.
    pub(crate) fn put(
        &self,
        state: &mut State,
        kind: &Kind,
        value: serde_json::Value,
    ) -> Arc<Object> {
        state.revision += 1;
        let object = Object::new(value, state.revision);
        let collection = &mut state.kinds[kind.index()];
        let before = collection
            .objects
            .insert(object.key.clone(), Arc::clone(&object));
        collection
            .window
            .push(object.revision, before, Some(Arc::clone(&object)), None);
        self.wake[kind.index()].send_replace(());
        object
    }

    /// Takes an object out, and gives it with the revision of its deletion.
    pub(crate) fn remove(&self, state: &mut State, kind: &Kind, key: &Key) -> Option<Arc<Object>> {
        let collection = &mut state.kinds[kind.index()];
        let before = collection.objects.remove(key)?;
        state.revision += 1;
        let gone = Object::new(before.value(), state.revision);
        collection
            .window
            .push(state.revision, Some(before), None, Some(Arc::clone(&gone)));
        self.wake[kind.index()].send_replace(());
        Some(gone)
    }

    pub(crate) fn backup(&self) -> Backup {
        let state = self.read();
        Backup {
            revision: state.revision,
            kinds: state.kinds.iter().map(|it| it.objects.clone()).collect(),
        }
    }

    /// Goes back to what was, with the revision that was then.
    pub(crate) fn restore(&self, backup: &Backup) {
        let mut state = self.read();
        state.revision = backup.revision;
        for (collection, objects) in state.kinds.iter_mut().zip(&backup.kinds) {
            collection.objects.clone_from(objects);
            collection.window = Window::starting_at(backup.revision);
        }
    }

    /// Lets nobody begin before now, as the watch cache begins when its process does.
    pub(crate) fn expire(&self) {
        let mut state = self.read();
        let revision = state.revision;
        for collection in &mut state.kinds {
            collection.window.expire(revision);
        }
    }
}

impl State {
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, kind: &Kind, key: &Key) -> Option<&Arc<Object>> {
        self.kinds[kind.index()].objects.get(key)
    }

    /// All objects of a kind, or those of one namespace, in the order of their keys.
    pub(crate) fn objects<'a>(
        &'a self,
        kind: &Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        within(&self.kinds[kind.index()].objects, namespace)
    }

    /// The objects of a kind as they were; None if that can't be told any more.
    pub(crate) fn objects_at(&self, kind: &Kind, revision: u64) -> Option<Objects> {
        let collection = &self.kinds[kind.index()];
        if revision < collection.window.since() {
            return None;
        }
        let mut objects = collection.objects.clone();
        for change in collection.window.after(revision)?.rev() {
            match (&change.before, &change.after) {
                (Some(before), _) => objects.insert(before.key.clone(), Arc::clone(before)),
                (None, Some(after)) => objects.remove(&after.key),
                (None, None) => None,
            };
        }
        Some(objects)
    }

    /// The oldest revision that a watch of the kind can begin at.
    pub(crate) fn oldest_watch(&self, kind: &Kind) -> u64 {
        self.kinds[kind.index()].window.since()
    }

    /// The changes of a kind after a revision, oldest first; None if some of them are gone.
    pub(crate) fn unsent(&self, kind: &Kind, revision: u64) -> Option<Vec<Change>> {
        let changes = self.kinds[kind.index()].window.after(revision)?;
        Some(changes.cloned().collect())
    }

    /// How many changes a watch at this revision has still to get.
    pub(crate) fn count_after(&self, kind: &Kind, revision: u64) -> usize {
        self.kinds[kind.index()].window.count_after(revision)
    }
}

/// Those of a namespace, or all.
pub(crate) fn within<'a>(
    objects: &'a Objects,
    namespace: Option<&'a str>,
) -> impl Iterator<Item = &'a Arc<Object>> {
    let start = Key::new(namespace.unwrap_or_default(), "");
    objects
        .range(start..)
        .map(|(_, object)| object)
        .take_while(move |object| namespace.is_none_or(|it| object.key.namespace == it))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(name: &str) -> serde_json::Value {
        json!({ "metadata": { "name": name } })
    }

    #[test]
    fn tells_what_was_at_an_earlier_revision() {
        let store = Store::new();
        let kind = &KINDS[0];
        let mut state = store.read();
        let first = store.put(&mut state, kind, namespace("a")).revision;
        store.put(&mut state, kind, namespace("b"));
        store.remove(&mut state, kind, &Key::new("", "a"));
        let names = |objects: &Objects| -> Vec<_> {
            objects.values().map(|it| it.key.name.clone()).collect()
        };
        let at = |revision| state.objects_at(kind, revision).map(|it| names(&it));
        assert_eq!(at(first), Some(vec!["a".to_owned()]));
        assert_eq!(at(first + 1), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(at(first + 2), Some(vec!["b".to_owned()]));
        assert_eq!(at(0), None);
    }
}
