//! The table of sessions. Their effect on locks, and of checks on them, is in [`super::State`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::model::Session;
use crate::ids;

/// The sessions by id.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    index: u64,
    rows: BTreeMap<String, SessionRow>,
}

#[derive(Debug)]
struct SessionRow {
    session: Arc<Session>,
    /// When the session ends unless it is renewed.
    deadline: Option<Instant>,
}

impl Sessions {
    /// All sessions sorted by id, and the index of the list.
    pub(crate) fn list(&self) -> (u64, impl Iterator<Item = &Arc<Session>>) {
        (self.index, self.rows.values().map(|row| &row.session))
    }

    /// Finds a session. Fails with Consul's error if `id` isn't a UUID.
    pub(crate) fn find(&self, id: &str) -> Result<Option<&Arc<Session>>, String> {
        ids::check_session_id(id)
            .map_err(|error| format!("failed session lookup: index error: {error}"))?;
        Ok(self.rows.get(&id.to_lowercase()).map(|row| &row.session))
    }

    /// The next time at which a session ends unless it is renewed.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.rows.values().filter_map(|row| row.deadline).min()
    }

    /// The ids of the sessions whose deadline has passed.
    pub(super) fn expired(&self, now: Instant) -> Vec<String> {
        let is_expired = |row: &&SessionRow| row.deadline.is_some_and(|deadline| deadline <= now);
        let expired = self.rows.values().filter(is_expired);
        expired.map(|row| row.session.id.clone()).collect()
    }

    /// Restarts the TTL of a session. Returns `None` if there is no such session.
    pub(crate) fn renew(&mut self, id: &str, now: Instant) -> Result<Option<Arc<Session>>, String> {
        let Some(session) = self.find(id)?.cloned() else {
            return Ok(None);
        };
        if let Some(row) = self.rows.get_mut(&session.id) {
            row.deadline = session.deadline(now);
        }
        Ok(Some(session))
    }

    /// Adds a session that was created at its `modify_index`. Its TTL starts now.
    pub(super) fn insert(&mut self, session: Arc<Session>, now: Instant) {
        self.index = self.index.max(session.modify_index);
        let deadline = session.deadline(now);
        self.rows
            .insert(session.id.clone(), SessionRow { session, deadline });
    }

    pub(super) fn remove(&mut self, id: &str, index: u64) {
        self.rows.remove(id);
        self.raise_index(index);
    }

    /// Restores the index at which the last session ended before a restart.
    pub(super) fn raise_index(&mut self, index: u64) {
        self.index = self.index.max(index);
    }
}
