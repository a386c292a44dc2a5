//! The last changes of one kind: what a watch can still be given from an older revision on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::object::Object;

/// The fewest changes that are kept, as in the API server.
const LEAST: usize = 100;
const MOST: usize = 100 * 1024;

/// Changes younger than this are kept even if there are more, as in the API server.
const FRESH: Duration = Duration::from_secs(75);

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub revision: u64,
    pub before: Option<Arc<Object>>,
    /// None if it was deleted.
    pub after: Option<Arc<Object>>,
    /// For a deletion, the object as it was with the revision of its deletion.
    pub gone: Option<Arc<Object>>,
    at: Instant,
}

/// The last changes.
#[derive(Debug)]
pub(crate) struct Window {
    changes: VecDeque<Change>,
    capacity: usize,
    /// From an earlier revision nobody can begin to watch.
    since: u64,
    /// Those who watch since an earlier revision have missed something.
    dropped: u64,
}

impl Window {
    pub(crate) fn starting_at(revision: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            capacity: LEAST,
            since: revision,
            dropped: 0,
        }
    }

    pub(crate) fn push(
        &mut self,
        revision: u64,
        before: Option<Arc<Object>>,
        after: Option<Arc<Object>>,
        gone: Option<Arc<Object>>,
    ) {
        let at = Instant::now();
        if self.changes.len() >= self.capacity {
            let is_fresh = self
                .changes
                .front()
                .is_some_and(|oldest| at.duration_since(oldest.at) < FRESH);
            if is_fresh && self.capacity < MOST {
                self.capacity *= 2;
            } else if let Some(dropped) = self.changes.pop_front() {
                self.dropped = dropped.revision;
                self.since = self.since.max(dropped.revision);
            }
        }
        self.changes.push_back(Change {
            revision,
            before,
            after,
            gone,
            at,
        });
    }

    /// Lets nobody begin before this revision; who watches already, goes on.
    pub(crate) fn expire(&mut self, revision: u64) {
        self.since = revision;
    }

    /// The oldest revision to begin at.
    pub(crate) fn since(&self) -> u64 {
        self.since
    }

    /// The changes after a revision, oldest first; None if some of them are gone.
    pub(crate) fn after(&self, revision: u64) -> Option<impl DoubleEndedIterator<Item = &Change>> {
        if revision < self.dropped {
            return None;
        }
        let start = self
            .changes
            .partition_point(|change| change.revision <= revision);
        Some(self.changes.range(start..))
    }

    /// How many changes there are after a revision.
    pub(crate) fn count_after(&self, revision: u64) -> usize {
        self.changes.len()
            - self
                .changes
                .partition_point(|change| change.revision <= revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(window: &mut Window, revision: u64) {
        window.push(revision, None, None, None);
    }

    #[tokio::test(start_paused = true)]
    async fn fresh_changes_are_kept_and_stale_ones_go_once_there_are_many() {
        let mut window = Window::starting_at(10);
        for revision in 11..=210 {
            push(&mut window, revision);
        }
        assert_eq!(window.after(10).map(Iterator::count), Some(200));
        tokio::time::sleep(FRESH).await;
        push(&mut window, 211);
        assert!(window.after(10).is_none());
        assert_eq!(window.since(), 11);
        assert_eq!(window.count_after(11), 200);
        assert!(window.after(9).is_none());
        window.expire(211);
        assert_eq!(window.since(), 211);
        assert_eq!(window.after(210).map(Iterator::count), Some(1));
    }
}
