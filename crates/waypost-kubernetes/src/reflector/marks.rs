//! What a reflector and the pulse of its namespace know of each other.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What others may know of a reflector, and it of them.
#[derive(Debug, Default)]
pub(in super::super) struct Marks {
    /// The resource version that it has come to; 0 before it knows one, or where they are no numbers.
    seen: AtomicU64,
    /// Whether nobody else can tell that the server has gone back in time.
    pub(in super::super) unwatched: AtomicBool,
}

impl Marks {
    pub(in super::super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, version: &str) {
        self.seen.store(numeric(version), Ordering::Relaxed);
    }
}

/// Resource versions are opaque, but those of Kubernetes are numbers that grow (KEP-5504).
pub(in super::super) fn numeric(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}
