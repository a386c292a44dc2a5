//! Undoing changes that couldn't be persisted: the rows get the values that are on disk.

use std::collections::{BTreeMap, BTreeSet};

use super::case_folding::fold_case;
use super::changes::Changes;
use super::journal_record::{JournalRecord, RestoredState};
use super::local::NewCheck;
use super::model::{Check, Node, Service};
use super::state::State;

/// The rows that records are about. Nodes are those other than this agent's, by case-folded name.
#[derive(Debug, Default)]
pub(super) struct TouchedRows {
    keys: BTreeSet<String>,
    sessions: BTreeSet<String>,
    services: BTreeSet<String>,
    checks: BTreeSet<String>,
    nodes: BTreeMap<String, TouchedNode>,
    /// The checks that have a result. Results are kept, and persisted with the next change.
    results: BTreeSet<String>,
}

/// The rows of one node: the name of the node, and case-folded ids.
#[derive(Debug, Default)]
struct TouchedNode {
    name: String,
    services: BTreeSet<String>,
    checks: BTreeSet<String>,
}

impl TouchedRows {
    /// `on_disk` has the checks that are removed together with their service or node.
    pub(super) fn of(records: &[JournalRecord], on_disk: &RestoredState) -> Self {
        let mut touched = Self::default();
        for record in records {
            touched.add(record, on_disk);
        }
        touched
    }

    fn add(&mut self, record: &JournalRecord, on_disk: &RestoredState) {
        match record {
            JournalRecord::Index(_) => {}
            JournalRecord::Key(entry) => {
                self.keys.insert(entry.key.clone());
            }
            JournalRecord::KeyDeleted { key, .. } => {
                self.keys.insert(key.clone());
            }
            JournalRecord::Session(session) => {
                self.sessions.insert(session.id.clone());
            }
            JournalRecord::SessionEnded { id, .. } => {
                self.sessions.insert(id.clone());
            }
            JournalRecord::Service(service) => {
                self.services.insert(service.id.clone());
            }
            JournalRecord::ServiceRemoved(id) => {
                self.services.insert(id.clone());
                let checks = on_disk.checks.iter();
                let checks = checks.filter(|(_, (check, _))| check.service_id == *id);
                self.checks.extend(checks.map(|(id, _)| id.clone()));
            }
            JournalRecord::Check { check, .. } => {
                self.checks.insert(check.id.clone());
            }
            JournalRecord::CheckRemoved(id) => {
                self.checks.insert(id.clone());
            }
            JournalRecord::CheckResult { check, .. } => {
                self.results.insert(check.clone());
            }
            JournalRecord::Node(node) => {
                self.node(&node.name);
            }
            JournalRecord::NodeRemoved(name) => {
                let touched = self.node(name);
                if let Some(node) = on_disk.nodes.get(&fold_case(name)) {
                    touched.services.extend(node.services.keys().cloned());
                    touched.checks.extend(node.checks.keys().cloned());
                }
            }
            JournalRecord::NodeService { node, service } => {
                self.node(node).services.insert(fold_case(&service.id));
            }
            JournalRecord::NodeServiceRemoved { node, id } => {
                let id = fold_case(id);
                let touched = self.node(node);
                if let Some(node) = on_disk.nodes.get(&fold_case(node)) {
                    let checks = node.checks.iter();
                    let checks = checks.filter(|(_, check)| fold_case(&check.service_id) == id);
                    touched.checks.extend(checks.map(|(id, _)| id.clone()));
                }
                touched.services.insert(id);
            }
            JournalRecord::NodeCheck(check) => {
                self.node(&check.node).checks.insert(fold_case(&check.id));
            }
            JournalRecord::NodeCheckRemoved { node, id } => {
                self.node(node).checks.insert(fold_case(id));
            }
        }
    }

    fn node(&mut self, name: &str) -> &mut TouchedNode {
        let node = self.nodes.entry(fold_case(name)).or_default();
        name.clone_into(&mut node.name);
        node
    }
}

impl State {
    /// Sets the rows to their values on disk. Returns the ids of the changed checks of this agent.
    pub(super) fn roll_back(
        &mut self,
        touched: TouchedRows,
        on_disk: &RestoredState,
        now: std::time::Instant,
        changes: &mut Changes,
    ) -> BTreeSet<String> {
        for key in &touched.keys {
            self.kv.set_to(key, on_disk.keys.get(key), changes);
        }
        for id in &touched.sessions {
            let index = changes.index();
            match on_disk.sessions.get(id) {
                Some(session) => self.sessions.insert(session.clone(), now),
                None => self.sessions.remove(id, index),
            }
            self.sessions.raise_index(index);
            changes.touch(super::watch::Topic::Sessions);
        }
        let (local, catalog) = (&mut self.local, &mut self.catalog);
        let mut checks = touched.checks;
        for id in &touched.services {
            if let Some(service) = on_disk.services.get(id) {
                let service = Service::clone(service);
                local.register_service(service, Vec::new(), false, catalog, changes);
            } else if let Some(removed) = local.deregister_service(id, catalog, changes) {
                checks.extend(removed);
            }
        }
        for id in &checks {
            match on_disk.checks.get(id) {
                Some((check, definition)) => {
                    let mut check = Check::clone(check);
                    local.node_name().clone_into(&mut check.node);
                    check.definition = None;
                    let new = NewCheck {
                        check,
                        deregister_after: definition.as_ref().and_then(|it| it.deregister_after()),
                        definition: definition.clone(),
                    };
                    local.register_check(new, catalog, changes);
                }
                None => {
                    local.deregister_check(id, catalog, changes);
                }
            }
        }
        for (key, touched) in &touched.nodes {
            let Some(known) = on_disk.nodes.get(key) else {
                catalog.remove_node(&touched.name, changes);
                continue;
            };
            let name = &known.node.name;
            catalog.put_node(Node::clone(&known.node), changes);
            for id in &touched.services {
                match known.services.get(id) {
                    Some(service) => catalog.put_service(name, Service::clone(service), changes),
                    None => {
                        catalog.remove_service(name, id, changes);
                    }
                }
            }
            for id in &touched.checks {
                match known.checks.get(id) {
                    Some(check) => catalog.put_check(Check::clone(check), changes),
                    None => {
                        catalog.remove_check(name, id, changes);
                    }
                }
            }
        }
        checks
    }

    /// The current results of the checks in `touched` that are still registered.
    pub(super) fn results_of(&self, touched: &TouchedRows) -> Vec<JournalRecord> {
        let records = touched.results.iter().filter_map(|id| {
            let check = &self.local.check(id)?.check;
            Some(JournalRecord::CheckResult {
                check: id.clone(),
                status: check.status,
                output: check.output.clone(),
            })
        });
        records.collect()
    }
}
