//! What lets the state outlive the process: taking it up again, and handing over what changes.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Check, Kept, Node, Record, Service, State, Store, fold};
use crate::journal::Pending;

impl Store {
    /// Takes up keys, sessions and other nodes where they were left. Sessions get their whole time
    /// again.
    pub(crate) fn restore(&self, kept: &Kept) {
        let mut inner = self.lock();
        let state = &mut inner.state;
        let now = Instant::now().into_std();
        state.index = state.index.max(kept.index);
        for entry in kept.keys.values() {
            state.kv.restore(Arc::clone(entry));
        }
        state.kv.restore_graves(kept.keys_gone);
        for session in kept.sessions.values() {
            state.sessions.restore(Arc::clone(session), now);
        }
        state.sessions.restore_index(kept.sessions_gone);
        drop(inner);
        self.write(|state, changes| {
            let own = fold(state.local.node_name());
            let others = kept.nodes.iter().filter(|(name, _)| **name != own);
            for (_, kept) in others {
                let catalog = &mut state.catalog;
                catalog.put_node(Node::clone(&kept.node), changes);
                for service in kept.services.values() {
                    catalog.put_service(&kept.node.name, Service::clone(service), changes);
                }
                for check in kept.checks.values() {
                    catalog.put_check(Check::clone(check), changes);
                }
            }
        });
    }

    /// From here on all changes go to `pending` too. Returns the state up to here.
    pub(crate) fn attach(&self, pending: Pending) -> Vec<Record> {
        let mut inner = self.lock();
        inner.pending = Some(pending);
        inner.state.records()
    }

    /// What has changed since it was last asked for, and how many records there have been.
    pub(crate) fn take_pending(&self) -> (Vec<u8>, u64) {
        let mut inner = self.lock();
        inner
            .pending
            .as_mut()
            .map(Pending::take)
            .unwrap_or_default()
    }

    /// The whole state in place of what has changed, and how many records there have been.
    pub(crate) fn snapshot(&self) -> (Vec<Record>, u64) {
        let mut inner = self.lock();
        let (_, count) = inner
            .pending
            .as_mut()
            .map(Pending::take)
            .unwrap_or_default();
        (inner.state.records(), count)
    }

    /// Waits until all changes up to now are on disk, if they are to be. The error is why they
    /// never will be.
    pub(crate) async fn saved(&self) -> Result<(), String> {
        let saved = self.lock().pending.as_ref().map(Pending::saved);
        match saved {
            Some(saved) => saved.await,
            None => Ok(()),
        }
    }
}

impl State {
    fn records(&self) -> Vec<Record> {
        let mut records = vec![
            Record::Index(self.index),
            // That something has gone is all that is still to be known of it.
            Record::KeyGone {
                key: String::new(),
                index: self.kv.newest_grave(),
            },
            Record::SessionGone {
                id: String::new(),
                index: self.sessions.list().0,
            },
        ];
        records.extend(self.kv.entries().cloned().map(Record::Key));
        records.extend(self.sessions.list().1.cloned().map(Record::Session));
        records.extend(self.local.services().cloned().map(Record::Service));
        records.extend(self.local.checks().map(|record| Record::Check {
            check: Arc::clone(&record.check),
            definition: record.definition.clone(),
        }));
        for (node, services, checks) in self.catalog.others() {
            records.push(Record::Node(Arc::clone(node)));
            records.extend(services.into_iter().map(|service| Record::NodeService {
                node: node.name.clone(),
                service: Arc::clone(service),
            }));
            let checks = checks.into_iter().cloned();
            records.extend(checks.map(Record::NodeCheck));
        }
        records
    }
}
