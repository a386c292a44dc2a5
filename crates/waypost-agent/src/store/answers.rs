//! Serialised answers, kept until what they say changes. A thousand watchers of one service that
//! wake together share one serialisation.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

/// An answer's body, plain and compressed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub plain: Bytes,
    gzip: OnceLock<Bytes>,
}

/// What an answer depends on beside the state of its service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AnswerKey {
    pub view: View,
    pub passing: bool,
    pub pretty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum View {
    /// `/v1/health/service/:name`
    Health,
    /// `/v1/catalog/service/:name`
    Catalog,
}

/// Where an answer is, or will be once the first who asked has serialised it.
pub(crate) type Slot = Arc<OnceLock<Arc<Answer>>>;

/// The answers of one service at its present index.
#[derive(Debug, Default)]
pub(super) struct Answers {
    slots: RefCell<HashMap<AnswerKey, Slot>>,
}

impl Answer {
    pub(crate) fn new(plain: impl Into<Bytes>) -> Self {
        Self {
            plain: plain.into(),
            gzip: OnceLock::new(),
        }
    }

    /// The compressed body, made by `compress` for the first who asks.
    pub(crate) fn gzip(&self, compress: impl FnOnce(&[u8]) -> Bytes) -> Bytes {
        self.gzip.get_or_init(|| compress(&self.plain)).clone()
    }
}

/// A copy has its own answers to give.
impl Clone for Answers {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Answers {
    pub(super) fn slot(&self, key: &AnswerKey) -> Slot {
        let mut slots = self.slots.borrow_mut();
        match slots.get(key) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(slots.entry(key.clone()).or_default()),
        }
    }

    pub(super) fn forget(&mut self) {
        self.slots.get_mut().clear();
    }
}
