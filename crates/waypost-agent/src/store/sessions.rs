//! Sessions: what holds locks. One ends when it is destroyed, when nobody renews it in time, or
//! when one of its checks turns critical or goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Changes, Record, State, Status, Topic, fold};
use crate::{go_compat, ids};

/// A session as Consul shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Session {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    pub node: String,
    /// In nanoseconds.
    pub lock_delay: i64,
    pub behavior: String,
    #[serde(rename = "TTL")]
    pub ttl: String,
    pub node_checks: Option<Vec<String>>,
    pub service_checks: Option<Vec<ServiceCheck>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<String>,
    pub create_index: u64,
    pub modify_index: u64,
}

/// A check of a service that a session depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct ServiceCheck {
    #[serde(rename = "ID")]
    pub id: String,
    pub namespace: String,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    index: u64,
    rows: BTreeMap<String, Row>,
}

#[derive(Debug)]
struct Row {
    session: Arc<Session>,
    /// When it ends, if it must be renewed.
    deadline: Option<Instant>,
}

/// Consul ends a session somewhere between its time to live and twice that; in practice at twice.
const GRACE: u32 = 2;

impl Session {
    /// What to do with the keys when the session ends: release them.
    pub(crate) const RELEASE: &str = "release";
    /// What to do with the keys when the session ends: delete them.
    pub(crate) const DELETE: &str = "delete";

    fn time_to_live(&self) -> Option<Duration> {
        let nanoseconds = go_compat::parse_duration(&self.ttl).ok()?;
        Some(go_compat::duration(nanoseconds)).filter(|ttl| !ttl.is_zero())
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        Some(now + self.time_to_live()? * GRACE)
    }

    fn all_checks(&self) -> impl Iterator<Item = &String> {
        let of_node = self.node_checks.iter().flatten();
        let of_services = self.service_checks.iter().flatten().map(|check| &check.id);
        self.checks.iter().chain(of_node).chain(of_services)
    }
}

impl Sessions {
    /// All sessions in order of their ids, and the index of that list.
    pub(crate) fn list(&self) -> (u64, impl Iterator<Item = &Arc<Session>>) {
        (self.index, self.rows.values().map(|row| &row.session))
    }

    /// A session. The error is Consul's for what can't be an id.
    pub(crate) fn find(&self, id: &str) -> Result<Option<&Arc<Session>>, String> {
        ids::check_session_id(id)
            .map_err(|fault| format!("failed session lookup: index error: {fault}"))?;
        Ok(self.rows.get(&id.to_lowercase()).map(|row| &row.session))
    }

    /// When the next session ends unless it is renewed.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.rows.values().filter_map(|row| row.deadline).min()
    }

    /// Puts off the end of a session.
    pub(crate) fn renew(&mut self, id: &str, now: Instant) -> Result<Option<Arc<Session>>, String> {
        let Some(session) = self.find(id)?.cloned() else {
            return Ok(None);
        };
        if let Some(row) = self.rows.get_mut(&session.id) {
            row.deadline = session.deadline(now);
        }
        Ok(Some(session))
    }

    /// Puts a session where it was before a restart; its time starts anew.
    pub(super) fn restore(&mut self, session: Arc<Session>, now: Instant) {
        self.index = self.index.max(session.modify_index);
        let deadline = session.deadline(now);
        self.rows
            .insert(session.id.clone(), Row { session, deadline });
    }

    /// Takes up the index again at which a session ended before a restart.
    pub(super) fn restore_index(&mut self, index: u64) {
        self.index = self.index.max(index);
    }

    fn forget(&mut self, id: &str, index: u64) {
        self.rows.remove(id);
        self.index = self.index.max(index);
    }
}

impl State {
    /// Starts a session, whose fields have been looked at already. The error is Consul's.
    pub(crate) fn create_session(
        &mut self,
        mut session: Session,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<(), String> {
        if self.catalog.node(&session.node).is_none() {
            return Err("Missing node registration".to_owned());
        }
        let (_, checks) = self.catalog.checks_of_node(&session.node);
        for id in session.all_checks() {
            match checks.iter().find(|check| fold(&check.id) == fold(id)) {
                None => return Err(format!("Missing check '{id}' registration")),
                Some(check) if check.status == Status::Critical => {
                    return Err(format!("Check '{id}' is in critical state"));
                }
                Some(_) => {}
            }
        }
        session.create_index = changes.index();
        session.modify_index = changes.index();
        let session = Arc::new(session);
        self.sessions.restore(Arc::clone(&session), now);
        changes.touch(Topic::Sessions);
        changes.record(|| Record::Session(session));
        Ok(())
    }

    /// Ends a session, if there is one. The error is Consul's.
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
        self.sessions.forget(&session.id, index);
        let deletes = session.behavior == Session::DELETE;
        let delay = go_compat::duration(session.lock_delay);
        self.kv.let_go(&session.id, deletes, delay, now, changes);
        changes.touch(Topic::Sessions);
        changes.record(|| Record::SessionGone {
            id: session.id.clone(),
            index,
        });
        Ok(())
    }

    /// Ends the sessions that nobody has renewed in time.
    pub(crate) fn expire_sessions(&mut self, now: Instant, changes: &mut Changes) {
        let is_over = |row: &&Row| row.deadline.is_some_and(|deadline| deadline <= now);
        let over = self.sessions.rows.values().filter(is_over);
        let ids: Vec<_> = over.map(|row| row.session.id.clone()).collect();
        self.end_all(ids, now, changes);
    }

    /// Ends the sessions that depend on checks that have failed or gone in this write.
    pub(super) fn end_sessions_of_failed_checks(&mut self, now: Instant, changes: &mut Changes) {
        if self.sessions.rows.is_empty() {
            return;
        }
        let failed = std::mem::take(&mut changes.failed_checks);
        let depends = |session: &Session| {
            failed.iter().any(|(node, check)| {
                let mut checks = session.all_checks();
                let is_concerned = check.is_empty() || checks.any(|own| fold(own) == *check);
                fold(&session.node) == *node && is_concerned
            })
        };
        let sessions = self.sessions.rows.values().map(|row| &row.session);
        let ids = sessions
            .filter(|session| depends(session))
            .map(|session| session.id.clone());
        let ids = ids.collect();
        self.end_all(ids, now, changes);
    }

    fn end_all(&mut self, ids: Vec<String>, now: Instant, changes: &mut Changes) {
        for id in ids {
            tracing::info!(session = %id, "a session ended");
            // Its id has been one before.
            let _ = self.destroy_session(&id, now, changes);
        }
    }
}
