//! The registry's state: in memory, synchronous, behind one lock that is held for microseconds.
//!
//! Nothing here knows of HTTP, of tasks or of the clock: callers bring the time with them, and
//! [`Watch`] works on any executor.
//!
//! Two tables stand side by side, as in Consul. The [`Catalog`] is what the cluster knows. What
//! has been registered with *this* agent is [`Local`], which writes every change through to the
//! catalog in the same breath, so that both are always of one mind.

mod answers;
mod catalog;
mod coordinates;
mod events;
mod kv;
mod local;
mod model;
mod record;
mod restart;
mod sessions;
mod transaction;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

pub(crate) use answers::{Answer, AnswerKey, View};
pub(crate) use catalog::{Catalog, CatalogEntry, Instance, WholeNode};
pub(crate) use coordinates::{Coordinate, Coordinates};
pub(crate) use events::{Event, Events};
pub(crate) use kv::{Entry, Kv};
pub(crate) use local::{Local, NewCheck, Outcome};
pub(crate) use model::{
    Check, Connect, Definition, Node, Proxy, Service, ServiceAddress, Status, Weights,
};
pub(crate) use record::{Kept, Record};
pub(crate) use sessions::{ServiceCheck, Session, Sessions};
pub(crate) use transaction::{KvOperation, Operation, OperationFault, Shown};
pub(crate) use watch::{Topic, Watch};

use crate::journal::Pending;
use watch::Watches;

/// The index before the first write. A Consul has written a few times when it gets to its own node,
/// and clients count on it: HashiCorp's test server isn't ready before the nodes' index is 2.
const INDEX_AT_START: u64 = 10;

/// The addresses that mean "wherever", and so lead nowhere.
pub(crate) const WHEREVER: [&str; 3] = ["0.0.0.0", "::", "[::]"];

/// The state and those who wait for it to change.
#[derive(Debug)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    watches: Watches,
    /// What isn't on disk yet, if anything is kept there.
    pending: Option<Pending>,
}

/// Everything the registry knows.
#[derive(Debug)]
pub(crate) struct State {
    /// The index of the last write.
    index: u64,
    pub catalog: Catalog,
    pub local: Local,
    pub kv: Kv,
    pub coordinates: Coordinates,
    pub events: Events,
    pub sessions: Sessions,
}

/// The changes that one write makes. They share one index; a write that changes nothing takes
/// none, so that repeating a registration wakes nobody.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    last: u64,
    taken: bool,
    touched: Vec<Topic>,
    /// Node and id, folded, of the checks that turned critical or went: sessions end with them. No
    /// id is the whole node.
    failed_checks: Vec<(String, String)>,
    /// What is to be kept on disk, if anything is.
    records: Option<Vec<Record>>,
}

impl Store {
    /// A registry whose only node is `node`.
    pub(crate) fn new(node: Node) -> Self {
        let store = Self {
            inner: Mutex::new(Inner {
                state: State {
                    index: INDEX_AT_START,
                    local: Local::new(&node),
                    catalog: Catalog::new(&node.name),
                    kv: Kv::default(),
                    coordinates: Coordinates::default(),
                    events: Events::default(),
                    sessions: Sessions::default(),
                },
                watches: Watches::default(),
                pending: None,
            }),
        };
        store.write(|state, changes| {
            let name = node.name.clone();
            state.catalog.put_node(node, changes);
            state.locate(&name, "", Coordinate::origin(), changes);
        });
        store
    }

    /// Looks at the state. Keep it short: everybody else waits.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// Changes the state, then wakes the watchers of what was touched.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut State, &mut Changes) -> T) -> T {
        let mut inner = self.lock();
        let mut changes = Changes::after(inner.state.index);
        changes.records = inner.pending.is_some().then(Vec::new);
        let result = change(&mut inner.state, &mut changes);
        if !changes.failed_checks.is_empty() {
            let now = Instant::now().into_std();
            inner.state.end_sessions_of_failed_checks(now, &mut changes);
        }
        inner.state.index = changes.last;
        if let Some(pending) = &mut inner.pending {
            let mut records = changes.records.take().unwrap_or_default();
            if changes.taken {
                records.push(Record::Index(changes.last));
            }
            pending.push(&records);
        }
        let events: Vec<_> = changes
            .touched
            .iter()
            .flat_map(|topic| inner.watches.of(topic))
            .collect();
        drop(inner);
        for event in events {
            event.notify(usize::MAX);
        }
        result
    }

    /// Joins those who wait for `topic`.
    pub(crate) fn watch(&self, topic: Topic) -> Watch<'_> {
        let event = self.lock().watches.join(topic.clone());
        Watch::new(self, topic, event)
    }

    /// A panic while the lock is held leaves at worst one write half done; the others go on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The index of the last write.
    pub(crate) fn index(&self) -> u64 {
        self.index
    }
}

impl Changes {
    fn after(last: u64) -> Self {
        Self {
            last,
            taken: false,
            touched: Vec::new(),
            failed_checks: Vec::new(),
            records: None,
        }
    }

    /// The index of this write.
    fn index(&mut self) -> u64 {
        if !self.taken {
            self.taken = true;
            self.last += 1;
        }
        self.last
    }

    fn touch(&mut self, topic: Topic) {
        // A registration touches the same few topics over and over.
        if !self.touched.iter().rev().take(4).any(|last| *last == topic) {
            self.touched.push(topic);
        }
    }

    fn record(&mut self, record: impl FnOnce() -> Record) {
        if let Some(records) = &mut self.records {
            records.push(record());
        }
    }

    fn lose_node(&mut self, key: &str) {
        self.failed_checks.push((key.to_owned(), String::new()));
    }

    fn fail_check(&mut self, node: &str, check: &str) {
        self.failed_checks.push((fold(node), fold(check)));
    }
}

/// Consul compares names without regard to case, and so do all keys in the catalog.
pub(crate) fn fold(name: &str) -> String {
    name.to_lowercase()
}
