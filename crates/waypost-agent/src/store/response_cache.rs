//! Serialized responses, kept until what they describe changes. A thousand watchers that wake together
//! share one serialization.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;

/// The body of a response, uncompressed and compressed.
#[derive(Debug)]
pub(crate) struct CachedBody {
    pub uncompressed: Bytes,
    gzip: OnceLock<Bytes>,
}

/// The part of a request, other than the service, that determines the response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    pub view: View,
    pub passing: bool,
    pub pretty: bool,
}

/// The endpoint of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// `/v1/health/service/:name`
    Health,
    /// `/v1/catalog/service/:name`
    Catalog,
}

/// Holds a response once the first request for it has serialized it.
pub(crate) type CacheSlot = Arc<OnceLock<Arc<CachedBody>>>;

/// The responses of one service at its current index.
#[derive(Debug, Default)]
pub(super) struct ResponseCache {
    slots: RefCell<HashMap<CacheKey, CacheSlot>>,
}

impl CachedBody {
    pub(crate) fn new(uncompressed: impl Into<Bytes>) -> Self {
        Self {
            uncompressed: uncompressed.into(),
            gzip: OnceLock::new(),
        }
    }

    /// The compressed body. The first call makes it with `compress`.
    pub(crate) fn gzip(&self, compress: impl FnOnce(&[u8]) -> Bytes) -> Bytes {
        self.gzip
            .get_or_init(|| compress(&self.uncompressed))
            .clone()
    }
}

/// A clone starts empty, because it may diverge from the original.
impl Clone for ResponseCache {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl ResponseCache {
    pub(super) fn slot(&self, key: &CacheKey) -> CacheSlot {
        let mut slots = self.slots.borrow_mut();
        match slots.get(key) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(slots.entry(key.clone()).or_default()),
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.get_mut().clear();
    }
}

/// Long responses that are being sent. Unlike [`ResponseCache`], it doesn't keep them in memory afterwards:
/// a list of keys may be larger than the rest of the process.
#[derive(Debug)]
pub(crate) struct SharedResponses<K> {
    bodies: RefCell<HashMap<K, Weak<CachedBody>>>,
}

impl<K: Eq + std::hash::Hash> SharedResponses<K> {
    pub(crate) fn get(&self, key: &K) -> Option<Arc<CachedBody>> {
        self.bodies.borrow().get(key)?.upgrade()
    }

    pub(crate) fn insert(&self, key: K, body: &Arc<CachedBody>) {
        let mut bodies = self.bodies.borrow_mut();
        bodies.retain(|_, body| body.strong_count() > 0);
        bodies.insert(key, Arc::downgrade(body));
    }
}

impl<K> Default for SharedResponses<K> {
    fn default() -> Self {
        Self {
            bodies: RefCell::default(),
        }
    }
}
