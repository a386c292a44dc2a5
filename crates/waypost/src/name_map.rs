//! A map from service names, read without a lock.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use foldhash::fast::RandomState;
use waypost_core::ServiceName;

/// A part of a [`NameMap`].
pub(crate) type Shard<V> = HashMap<ServiceName, V, RandomState>;

/// A map from service names, whose reads take no lock.
///
/// A change copies a part of the map. So the map consists of shards, and only one of them is copied:
/// copying the whole map for each of 10,000 first look-ups would take seconds.
pub(crate) struct NameMap<V> {
    hasher: RandomState,
    shards: Box<[ArcSwap<Shard<V>>]>,
}

impl<V: Clone> NameMap<V> {
    const SHARDS: usize = 256;

    /// The shard that a name is in.
    #[inline]
    pub(crate) fn shard(&self, name: &str) -> Guard<Arc<Shard<V>>> {
        self.shards[self.index(name)].load()
    }

    /// Changes the shard that a name is in. `change` may be called again if another thread has changed
    /// the shard meanwhile. It returns `None` to leave the shard as it is.
    pub(crate) fn change(&self, name: &str, mut change: impl FnMut(&Shard<V>) -> Option<Shard<V>>) {
        self.shards[self.index(name)].rcu(|shard| match change(shard) {
            Some(changed) => Arc::new(changed),
            None => Arc::clone(shard),
        });
    }

    /// Copies of all values.
    pub(crate) fn values(&self) -> Vec<V> {
        let shards = self.shards.iter().map(ArcSwap::load);
        let values = shards.flat_map(|shard| shard.values().cloned().collect::<Vec<_>>());
        values.collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.load().len()).sum()
    }

    #[inline]
    fn index(&self, name: &str) -> usize {
        self.hasher.hash_one(name) as usize % Self::SHARDS
    }
}

impl<V: Clone> Default for NameMap<V> {
    fn default() -> Self {
        // All shards share one empty map until a name is added to them.
        let empty = Arc::new(Shard::default());
        let shards = (0..Self::SHARDS).map(|_| ArcSwap::new(Arc::clone(&empty)));
        Self {
            hasher: RandomState::default(),
            shards: shards.collect(),
        }
    }
}
