//! The state that etcd and the watch cache hold in a real cluster: all objects, the revision, and the
//! last changes.

pub(crate) mod object;
pub(crate) mod selector;
pub(crate) mod watch_cache;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use self::object::{Key, Object};
use self::watch_cache::{Change, WatchCache};
use crate::kind::Kind;

/// All objects of one kind.
type Objects = BTreeMap<Key, Arc<Object>>;

/// All objects, the revision of the last change, and the changes before it.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    /// In the order of [`Kind::ALL`].
    collections: [Collection; Kind::ALL.len()],
}

#[derive(Debug)]
struct Collection {
    objects: Objects,
    cache: WatchCache,
    /// Notified after each change.
    changed: watch::Sender<()>,
}

/// All objects as they were at one revision, as in a snapshot of etcd.
#[derive(Clone, Debug)]
pub struct Backup {
    revision: u64,
    objects: [Objects; Kind::ALL.len()],
}

impl Backup {
    /// The revision at which it was taken.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Store {
    pub(crate) fn new() -> Self {
        Self {
            revision: 1,
            collections: Kind::ALL.map(|_| Collection {
                objects: Objects::new(),
                cache: WatchCache::starting_at(1),
                changed: watch::Sender::new(()),
            }),
        }
    }

    /// The revision of the last change.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, kind: Kind, key: &Key) -> Option<&Arc<Object>> {
        self.collection(kind).objects.get(key)
    }

    /// The objects of a namespace in the order of their names; if `namespace` is empty, those of all
    /// namespaces.
    pub(crate) fn objects<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Object>> {
        let from = Key::new(namespace, "");
        let objects = self.collection(kind).objects.range(from..);
        objects
            .map(|(_, object)| object)
            .take_while(move |object| object.key.is_in(namespace))
    }

    /// Stores an object, in place of the one of the same name. `value` is complete except for its
    /// revision.
    pub(crate) fn put(&mut self, kind: Kind, value: Value) -> Arc<Object> {
        self.revision += 1;
        let object = Object::new(value, self.revision);
        let collection = self.collection_mut(kind);
        let before = collection
            .objects
            .insert(object.key.clone(), Arc::clone(&object));
        collection.record(Change {
            before,
            current: Arc::clone(&object),
            is_deletion: false,
        });
        object
    }

    /// Removes an object; false if there is none.
    pub(crate) fn remove(&mut self, kind: Kind, key: &Key) -> bool {
        let Some(before) = self.collection_mut(kind).objects.remove(key) else {
            return false;
        };
        self.revision += 1;
        let current = Object::new(before.value(), self.revision);
        self.collection_mut(kind).record(Change {
            before: Some(before),
            current,
            is_deletion: true,
        });
        true
    }

    pub(crate) fn backup(&self) -> Backup {
        Backup {
            revision: self.revision,
            objects: self.collections.each_ref().map(|it| it.objects.clone()),
        }
    }

    /// Goes back to the objects and the revision of a backup.
    pub(crate) fn restore(&mut self, backup: &Backup) {
        self.revision = backup.revision;
        for (collection, objects) in self.collections.iter_mut().zip(&backup.objects) {
            collection.objects.clone_from(objects);
            collection.cache = WatchCache::starting_at(backup.revision);
        }
    }

    /// Expires all revisions before the current one, as a restart of the API server does.
    pub(crate) fn expire(&mut self) {
        for collection in &mut self.collections {
            collection.cache.expire(self.revision);
        }
    }

    pub(crate) fn watch_cache(&self, kind: Kind) -> &WatchCache {
        &self.collection(kind).cache
    }

    /// Is notified after each change of the kind.
    pub(crate) fn subscribe(&self, kind: Kind) -> watch::Receiver<()> {
        self.collection(kind).changed.subscribe()
    }

    fn collection(&self, kind: Kind) -> &Collection {
        &self.collections[kind as usize]
    }

    fn collection_mut(&mut self, kind: Kind) -> &mut Collection {
        &mut self.collections[kind as usize]
    }
}

impl Collection {
    fn record(&mut self, change: Change) {
        self.cache.push(change);
        self.changed.send_replace(());
    }
}
