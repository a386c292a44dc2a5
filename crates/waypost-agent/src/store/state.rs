//! All tables, and the operations that concern several of them.

use std::sync::Arc;
use std::time::Instant;

use super::case_folding::fold_case;
use super::catalog::Catalog;
use super::changes::{Changes, FailedCheck};
use super::check_history::CheckHistory;
use super::coordinates::{Coordinate, Coordinates};
use super::events::UserEvents;
use super::journal_record::{JournalRecord, RestoredState};
use super::kv::Kv;
use super::local::{CheckResult, LocalState};
use super::model::{Check, CheckStatus, KvEntry, Node, Service, Session};
use super::sessions::Sessions;
use super::watch::Topic;
use crate::go_compat;

/// The index before the first write. A Consul server has written a few times before it registers
/// its own node, and clients rely on that: HashiCorp's test server waits until the index of the
/// nodes is at least 2.
const INITIAL_INDEX: u64 = 10;

/// The state of the registry.
#[derive(Debug)]
pub(crate) struct State {
    /// The index of the last write.
    pub(super) index: u64,
    pub catalog: Catalog,
    pub check_history: CheckHistory,
    pub local: LocalState,
    pub kv: Kv,
    pub coordinates: Coordinates,
    pub events: UserEvents,
    pub sessions: Sessions,
}

impl State {
    /// The state of an agent on `node`, before the node is in the catalog.
    pub(super) fn new(node: &Node) -> Self {
        Self {
            index: INITIAL_INDEX,
            local: LocalState::new(node),
            catalog: Catalog::new(&node.name),
            check_history: CheckHistory::default(),
            kv: Kv::default(),
            coordinates: Coordinates::default(),
            events: UserEvents::default(),
            sessions: Sessions::default(),
        }
    }

    /// The index of the last write.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    /// Adds the node of this agent to the catalog.
    pub(super) fn register_local_node(&mut self, node: Node, changes: &mut Changes) {
        let name = node.name.clone();
        self.catalog.put_node(node, changes);
        self.set_coordinate(&name, "", Coordinate::origin(), changes);
    }

    /// Sets the coordinate of a node. Does nothing if the node isn't in the catalog.
    pub(crate) fn set_coordinate(
        &mut self,
        node: &str,
        segment: &str,
        coordinate: Coordinate,
        changes: &mut Changes,
    ) {
        self.coordinates
            .set(node, segment, coordinate, &self.catalog, changes);
    }

    /// Records the result of a check of this agent. See [`LocalState::record_check_result`].
    pub(crate) fn record_check_result(
        &mut self,
        id: &str,
        result: CheckResult,
        now: Instant,
        changes: &mut Changes,
    ) {
        self.local
            .record_check_result(id, result, now, &mut self.catalog, changes);
    }

    /// Adds the transitions of a write to the history of checks.
    pub(super) fn record_transitions(&mut self, changes: &mut Changes) {
        for (check, transition) in changes.take_transitions() {
            self.check_history.record(check, transition);
        }
    }

    // === Sessions and locks ===

    /// Creates a session that has already been validated, except for its node and checks. The error
    /// is Consul's.
    pub(crate) fn create_session(
        &mut self,
        mut session: Session,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<(), String> {
        if !self.catalog.has_node(&session.node) {
            return Err("Missing node registration".to_owned());
        }
        for id in session.all_checks() {
            match self.catalog.check_on(&session.node, id) {
                None => return Err(format!("Missing check '{id}' registration")),
                Some(check) if check.status == CheckStatus::Critical => {
                    return Err(format!("Check '{id}' is in critical state"));
                }
                Some(_) => {}
            }
        }
        session.create_index = changes.index();
        session.modify_index = changes.index();
        let session = Arc::new(session);
        self.sessions.insert(Arc::clone(&session), now);
        changes.touch(Topic::Sessions);
        changes.record(|| JournalRecord::Session(session));
        Ok(())
    }

    /// Ends a session and releases its locks. Does nothing if there is none. Fails with Consul's
    /// error if `id` isn't a UUID.
    pub(crate) fn destroy_session(
        &mut self,
        id: &str,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<(), String> {
        let Some(session) = self.sessions.find(id)?.cloned() else {
            return Ok(());
        };
        let index = changes.index();
        self.sessions.remove(&session.id, index);
        let delete = session.behavior == Session::DELETE;
        let delay = go_compat::duration(session.lock_delay);
        self.kv
            .release_session(&session.id, delete, delay, now, changes);
        changes.touch(Topic::Sessions);
        changes.record(|| JournalRecord::SessionEnded {
            id: session.id.clone(),
            index,
        });
        Ok(())
    }

    /// Ends the sessions whose TTL has expired.
    pub(crate) fn expire_sessions(&mut self, now: Instant, changes: &mut Changes) {
        self.end_sessions(self.sessions.expired(now), now, changes);
    }

    /// Ends the sessions that depend on a check which this write made critical or removed.
    pub(super) fn end_sessions_of_failed_checks(&mut self, now: Instant, changes: &mut Changes) {
        let failed = changes.take_failed_checks();
        let (_, sessions) = self.sessions.list();
        let affected = sessions.filter(|session| {
            failed
                .iter()
                .any(|failed| depends_on(session.as_ref(), failed))
        });
        let ids = affected.map(|session| session.id.clone()).collect();
        self.end_sessions(ids, now, changes);
    }

    fn end_sessions(&mut self, ids: Vec<String>, now: Instant, changes: &mut Changes) {
        for id in ids {
            tracing::info!(session = %id, "session ended");
            // Fails only for an invalid id.
            let _ = self.destroy_session(&id, now, changes);
        }
    }

    /// Locks a key for `entry.session`. Returns `None` if another session holds the lock. The error
    /// is Consul's.
    pub(crate) fn lock(
        &mut self,
        entry: KvEntry,
        changes: &mut Changes,
    ) -> Result<Option<Arc<KvEntry>>, String> {
        let id = &entry.session;
        if id.is_empty() {
            return Err("missing session".to_owned());
        }
        if self.sessions.find(id)?.is_none() {
            return Err(format!("invalid session {id:?}"));
        }
        Ok(self.kv.lock(entry, changes))
    }

    /// Unlocks a key for `entry.session`. Returns `None` if the session doesn't hold the lock. The
    /// error is Consul's.
    pub(crate) fn unlock(
        &mut self,
        entry: KvEntry,
        changes: &mut Changes,
    ) -> Result<Option<Arc<KvEntry>>, String> {
        if entry.session.is_empty() {
            return Err("missing session".to_owned());
        }
        Ok(self.kv.unlock(entry, changes))
    }

    // === Persistence ===

    /// Restores keys, sessions and the index. Sessions get their whole TTL again.
    pub(super) fn restore_tables(&mut self, restored: &RestoredState, now: Instant) {
        self.index = self.index.max(restored.index);
        for entry in restored.keys.values() {
            self.kv.restore(Arc::clone(entry));
        }
        self.kv.restore_tombstones(restored.last_key_deletion);
        for session in restored.sessions.values() {
            self.sessions.insert(Arc::clone(session), now);
        }
        self.sessions.raise_index(restored.last_session_end);
    }

    /// Restores the nodes other than this agent's. They get new indexes.
    pub(super) fn restore_remote_nodes(&mut self, restored: &RestoredState, changes: &mut Changes) {
        let local = fold_case(self.local.node_name());
        let remote = restored.nodes.iter().filter(|(name, _)| **name != local);
        let catalog = &mut self.catalog;
        for (_, restored) in remote {
            catalog.put_node(Node::clone(&restored.node), changes);
            for service in restored.services.values() {
                catalog.put_service(&restored.node.name, Service::clone(service), changes);
            }
            for check in restored.checks.values() {
                catalog.put_check(Check::clone(check), changes);
            }
        }
    }

    /// The whole state as journal records.
    pub(super) fn journal_records(&self) -> Vec<JournalRecord> {
        let (sessions_index, sessions) = self.sessions.list();
        let mut records = vec![
            JournalRecord::Index(self.index),
            // Of deleted keys and ended sessions only the last index matters.
            JournalRecord::KeyDeleted {
                key: String::new(),
                index: self.kv.newest_tombstone(),
            },
            JournalRecord::SessionEnded {
                id: String::new(),
                index: sessions_index,
            },
        ];
        records.extend(self.kv.entries().cloned().map(JournalRecord::Key));
        records.extend(sessions.cloned().map(JournalRecord::Session));
        records.extend(self.local.services().cloned().map(JournalRecord::Service));
        records.extend(self.local.checks().map(|record| JournalRecord::Check {
            check: Arc::clone(&record.check),
            definition: record.definition.clone(),
        }));
        for remote in self.catalog.remote_nodes() {
            let name = &remote.node.name;
            records.push(JournalRecord::Node(Arc::clone(&remote.node)));
            let services = remote.services.into_iter();
            records.extend(services.map(|service| JournalRecord::NodeService {
                node: name.clone(),
                service,
            }));
            let checks = remote.checks.into_iter();
            records.extend(checks.map(JournalRecord::NodeCheck));
        }
        records
    }
}

/// Whether a session ends with a check.
fn depends_on(session: &Session, failed: &FailedCheck) -> bool {
    let is_listed = |check: &String| session.all_checks().any(|id| fold_case(id) == *check);
    fold_case(&session.node) == failed.node && failed.check.as_ref().is_none_or(is_listed)
}
