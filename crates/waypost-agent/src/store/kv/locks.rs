//! The locks on keys, which sessions hold.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Changes, State};
use super::{Entry, Kv};

/// The longest that a lock can stay closed after its session has ended.
const LONGEST_LOCK_DELAY: Duration = Duration::from_secs(60);

impl State {
    /// Locks a key for `entry.session`; whether that has it now. The error is Consul's.
    pub(crate) fn lock(
        &mut self,
        entry: Entry,
        changes: &mut Changes,
    ) -> Result<Option<Arc<Entry>>, String> {
        let id = &entry.session;
        if id.is_empty() {
            return Err("missing session".to_owned());
        }
        if self.sessions.find(id)?.is_none() {
            return Err(format!("invalid session {id:?}"));
        }
        Ok(self.kv.lock(entry, changes))
    }

    /// Unlocks a key for `entry.session`; whether that had it. The error is Consul's.
    pub(crate) fn unlock(
        &mut self,
        entry: Entry,
        changes: &mut Changes,
    ) -> Result<Option<Arc<Entry>>, String> {
        if entry.session.is_empty() {
            return Err("missing session".to_owned());
        }
        Ok(self.kv.unlock(entry, changes))
    }
}

impl Kv {
    /// Whether a lock stays closed for now.
    pub(crate) fn is_closed(&self, key: &str, now: Instant) -> bool {
        self.closed.get(key).is_some_and(|until| *until > now)
    }

    /// Gives the lock to `entry.session`. Nothing if another session has it.
    fn lock(&mut self, mut entry: Entry, changes: &mut Changes) -> Option<Arc<Entry>> {
        entry.lock_index = match self.entries.get(&entry.key) {
            None => 1,
            Some(old) if old.session == entry.session => old.lock_index,
            Some(old) if old.session.is_empty() => old.lock_index + 1,
            Some(_) => return None,
        };
        Some(self.store(entry, changes))
    }

    /// Takes the lock from `entry.session`. Nothing if that hasn't got it.
    fn unlock(&mut self, mut entry: Entry, changes: &mut Changes) -> Option<Arc<Entry>> {
        let old = self.entries.get(&entry.key)?;
        if old.session != entry.session {
            return None;
        }
        entry.lock_index = old.lock_index;
        entry.session.clear();
        Some(self.store(entry, changes))
    }

    /// Lets go of all that an ended session held. The locks stay closed for `delay`, so that who
    /// had them can finish what it was doing.
    pub(in super::super) fn let_go(
        &mut self,
        session: &str,
        deletes: bool,
        delay: Duration,
        now: Instant,
        changes: &mut Changes,
    ) {
        let first = (session.to_owned(), String::new());
        let of_session = self.held.range(first..);
        let keys: Vec<_> = of_session
            .take_while(|(holder, _)| holder == session)
            .map(|(_, key)| key.clone())
            .collect();
        self.closed.retain(|_, until| *until > now);
        for key in keys {
            if deletes {
                self.delete(&key, changes);
            } else if let Some(entry) = self.entries.get(&key) {
                let mut entry = Entry::clone(entry);
                entry.session.clear();
                self.store(entry, changes);
            }
            if !delay.is_zero() {
                self.closed.insert(key, now + delay.min(LONGEST_LOCK_DELAY));
            }
        }
    }
}
