//! The last changes of one kind, for watches that start at an older revision.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::object::Object;

/// The smallest and the largest number of changes that are kept, as in the API server.
const MIN_CAPACITY: usize = 100;
const MAX_CAPACITY: usize = 100 * 1024;

/// Younger changes are kept by enlarging the cache, as in the API server.
const FRESH: Duration = Duration::from_secs(75);

/// One change of one object.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// None if the object was created.
    pub before: Option<Arc<Object>>,
    /// For a deletion, the object as it was, with the revision of its deletion.
    pub current: Arc<Object>,
    pub is_deletion: bool,
}

/// The last changes, oldest first.
#[derive(Debug)]
pub(crate) struct WatchCache {
    changes: VecDeque<(Instant, Change)>,
    capacity: usize,
    /// No watch can start at an earlier revision.
    oldest_start: u64,
    /// The revision of the last change that was dropped. A watch that has not sent it yet has missed a
    /// change.
    dropped: u64,
}

impl WatchCache {
    pub(crate) fn starting_at(revision: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            capacity: MIN_CAPACITY,
            oldest_start: revision,
            dropped: 0,
        }
    }

    pub(crate) fn push(&mut self, change: Change) {
        let now = Instant::now();
        if self.changes.len() >= self.capacity {
            let oldest = self.changes.front();
            let is_fresh = oldest.is_some_and(|(at, _)| now.duration_since(*at) < FRESH);
            if is_fresh && self.capacity < MAX_CAPACITY {
                self.capacity *= 2;
            } else if let Some((_, oldest)) = self.changes.pop_front() {
                self.dropped = oldest.current.revision;
                self.oldest_start = self.oldest_start.max(self.dropped);
            }
        }
        self.changes.push_back((now, change));
    }

    /// Expires all revisions before this one. Open watches continue.
    pub(crate) fn expire(&mut self, revision: u64) {
        self.oldest_start = revision;
    }

    /// The oldest revision that a watch can start at.
    pub(crate) fn oldest_start(&self) -> u64 {
        self.oldest_start
    }

    /// The changes after a revision, oldest first; None if some of them were dropped.
    pub(crate) fn after(&self, revision: u64) -> Option<impl Iterator<Item = &Change>> {
        let start = self.start_after(revision);
        (revision >= self.dropped).then(|| self.changes.range(start..).map(|(_, it)| it))
    }

    /// The number of changes after a revision.
    pub(crate) fn count_after(&self, revision: u64) -> usize {
        self.changes.len() - self.start_after(revision)
    }

    fn start_after(&self, revision: u64) -> usize {
        self.changes
            .partition_point(|(_, change)| change.current.revision <= revision)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn push(cache: &mut WatchCache, revision: u64) {
        cache.push(Change {
            before: None,
            current: Object::new(json!({}), revision),
            is_deletion: false,
        });
    }

    #[tokio::test(start_paused = true)]
    async fn old_changes_are_dropped_when_the_cache_is_full_and_young_ones_enlarge_it() {
        let mut cache = WatchCache::starting_at(10);
        for revision in 11..=210 {
            push(&mut cache, revision);
        }
        assert_eq!(cache.after(10).map(Iterator::count), Some(200));
        tokio::time::sleep(FRESH).await;
        push(&mut cache, 211);
        assert!(cache.after(10).is_none());
        assert_eq!(cache.oldest_start(), 11);
        assert_eq!(cache.count_after(11), 200);
        cache.expire(211);
        assert_eq!(cache.oldest_start(), 211);
        assert_eq!(cache.after(210).map(Iterator::count), Some(1));
    }
}
