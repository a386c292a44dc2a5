//! The instances that have recently refused a connection, which are passed over for a few seconds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use waypost::InstanceId;

/// How long an instance is avoided. A registry notices a dead instance within seconds; until then, each
/// pick of it would cost a retry.
const PASSED_OVER: Duration = Duration::from_secs(5);

/// The instances of one service that refused a connection within the last [`PASSED_OVER`].
#[derive(Debug, Default)]
pub(crate) struct RecentlyRefused {
    entries: Mutex<Vec<(InstanceId, Instant)>>,
    /// The number of entries. Mostly 0, and then no worker takes the lock.
    count: AtomicUsize,
}

impl RecentlyRefused {
    /// Adds an instance, or restarts its time.
    pub(crate) fn add(&self, id: &InstanceId) {
        let mut entries = self.unexpired();
        entries.retain(|(other, _)| other != id);
        entries.push((id.clone(), Instant::now() + PASSED_OVER));
        self.count.store(entries.len(), Ordering::Relaxed);
    }

    /// Removes an instance that has answered.
    pub(crate) fn remove(&self, id: &InstanceId) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut entries = self.unexpired();
        entries.retain(|(other, _)| other != id);
        self.count.store(entries.len(), Ordering::Relaxed);
    }

    pub(crate) fn ids(&self) -> Vec<InstanceId> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let entries = self.unexpired();
        self.count.store(entries.len(), Ordering::Relaxed);
        entries.iter().map(|(id, _)| id.clone()).collect()
    }

    fn unexpired(&self) -> MutexGuard<'_, Vec<(InstanceId, Instant)>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if !entries.is_empty() {
            let now = Instant::now();
            entries.retain(|(_, until)| *until > now);
        }
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_instance_is_listed_until_it_answers_or_its_time_is_over() {
        let (a, b) = (InstanceId::new("a"), InstanceId::new("b"));
        let refused = RecentlyRefused::default();
        refused.add(&a);
        refused.add(&b);
        refused.remove(&b);
        assert_eq!(refused.ids(), [a]);
        tokio::time::advance(PASSED_OVER).await;
        assert_eq!(refused.ids(), []);
    }
}
