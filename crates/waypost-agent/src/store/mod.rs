//! The state of the registry: in memory, synchronous, and behind one lock that is held for
//! microseconds.
//!
//! The store doesn't depend on HTTP or tasks, operations take the time as an argument, and [`Watch`]
//! works with any executor.
//!
//! As in Consul, there are two views of services and checks. The [`catalog::Catalog`] holds what the
//! whole cluster has registered. [`LocalState`] holds what is registered with this agent, and
//! writes every change through to the catalog, so that the two always agree.

mod case_folding;
mod catalog;
mod changes;
mod check_history;
mod coordinates;
mod events;
mod journal_record;
mod kv;
mod local;
mod model;
mod response_cache;
mod roll_back;
mod sessions;
mod state;
mod transaction;
mod watch;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::journal::JournalBuffer;
use crate::wall_clock;

pub(crate) use case_folding::fold_case;
pub(crate) use catalog::{CatalogEntry, FullNode, Instance};
pub(crate) use check_history::CheckHistory;
pub(crate) use coordinates::{Coordinate, NodeCoordinate};
pub(crate) use events::UserEvent;
pub(crate) use journal_record::{JournalRecord, RestoredState};
pub(crate) use kv::SharedListKey;
pub(crate) use local::{CheckRecord, CheckResult, NewCheck};
pub(crate) use model::{
    CatalogCheckDefinition, Check, CheckDefinition, CheckKind, CheckStatus, Connect, Expose,
    KvEntry, MeshGateway, Node, Proxy, ProxyConfig, Service, ServiceAddress, Session,
    SessionServiceCheck, Upstream, Weights,
};
pub(crate) use response_cache::{CacheKey, CachedBody, View};
pub(crate) use state::State;
pub(crate) use transaction::{KvOperation, Operation, OperationError, OperationResult, transact};
pub(crate) use watch::{Topic, Watch};

use changes::Changes;
use roll_back::TouchedRows;
use watch::Watches;

/// Addresses that a program can listen on but not connect to. They can't be registered.
pub(crate) const UNSPECIFIED_ADDRESSES: [&str; 3] = ["0.0.0.0", "::", "[::]"];

/// The state and its watchers.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
    watches: Watches,
}

#[derive(Debug)]
struct Inner {
    state: State,
    /// The changes that aren't on disk yet. `None` if nothing is persisted.
    journal: Option<JournalBuffer>,
}

impl Store {
    /// A registry whose only node is `node`.
    pub(crate) fn new(node: Node) -> Self {
        let store = Self {
            inner: Mutex::new(Inner {
                state: State::new(&node),
                journal: None,
            }),
            watches: Watches::default(),
        };
        store.write(|state, changes| state.register_local_node(node, changes));
        store
    }

    /// Reads the state. `read` must be short, because it blocks all other access.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.lock().state)
    }

    /// Changes the state and then wakes the watchers of the topics that were touched.
    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut State, &mut Changes) -> T) -> T {
        let mut inner = self.lock();
        let mut changes = Changes::new(
            inner.state.index,
            inner.journal.is_some(),
            wall_clock::now(),
        );
        let result = write(&mut inner.state, &mut changes);
        if changes.has_failed_checks() {
            let now = Instant::now().into_std();
            inner.state.end_sessions_of_failed_checks(now, &mut changes);
        }
        inner.state.record_transitions(&mut changes);
        inner.state.index = changes.last_index();
        if let Some(journal) = &mut inner.journal {
            journal.push(&changes.take_records());
        }
        drop(inner);
        self.watches.notify(changes.topics());
        result
    }

    /// Watches a topic until the [`Watch`] is dropped.
    pub(crate) fn watch(&self, topic: Topic) -> Watch<'_> {
        self.watches.subscribe(topic)
    }

    // === Persistence ===

    /// Restores keys, sessions and the nodes other than this agent's.
    pub(crate) fn restore(&self, restored: &RestoredState) {
        let now = Instant::now().into_std();
        self.lock().state.restore_tables(restored, now);
        self.write(|state, changes| state.restore_remote_nodes(restored, changes));
    }

    /// Adds every change from now on to `journal`. Returns the state before that.
    pub(crate) fn start_journal(&self, journal: JournalBuffer) -> Vec<JournalRecord> {
        let mut inner = self.lock();
        inner.journal = Some(journal);
        inner.state.journal_records()
    }

    /// The encoded changes since the last call, and the number of records so far.
    pub(crate) fn take_journal(&self) -> (Vec<u8>, u64) {
        let mut inner = self.lock();
        let journal = inner.journal.as_mut();
        journal.map(JournalBuffer::take).unwrap_or_default()
    }

    /// The whole state. It contains all changes so far.
    pub(crate) fn snapshot(&self) -> Vec<JournalRecord> {
        self.lock().state.journal_records()
    }

    /// Undoes changes that can't be written, and all changes that aren't written yet. Returns the number
    /// of records so far, and the ids of the changed checks of this agent.
    pub(crate) fn roll_back(
        &self,
        unwritten: Vec<JournalRecord>,
        on_disk: &RestoredState,
    ) -> (u64, BTreeSet<String>) {
        let now = Instant::now().into_std();
        let mut inner = self.lock();
        let journal = inner.journal.as_mut();
        let (pending, count) = journal.map(JournalBuffer::take).unwrap_or_default();
        let mut records = unwritten;
        records.extend(JournalBuffer::decode(&pending));
        let touched = TouchedRows::of(&records, on_disk);
        let results = inner.state.results_of(&touched);
        let mut changes = Changes::new(inner.state.index, false, wall_clock::now());
        let checks = inner.state.roll_back(touched, on_disk, now, &mut changes);
        inner.state.record_transitions(&mut changes);
        inner.state.index = changes.last_index();
        if let Some(journal) = &mut inner.journal {
            journal.push_for_later(&results);
        }
        drop(inner);
        self.watches.notify(changes.topics());
        (count, checks)
    }

    /// Waits until every change so far is on disk. Returns at once if nothing is persisted. The
    /// error says why they can't be written.
    pub(crate) async fn persisted(&self) -> Result<(), String> {
        let written = self.lock().journal.as_ref().map(JournalBuffer::written);
        match written {
            Some(written) => written.await,
            None => Ok(()),
        }
    }

    /// Ignores poisoning: a panic can leave one write incomplete, and later ones still work.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
