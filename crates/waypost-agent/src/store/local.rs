//! What has been registered with this agent, as opposed to the catalog that all agents share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::model::{Check, Node, Service, Status};
use super::{Changes, Record, State};
use crate::decode::CheckDefinition;

/// A change of a check's output alone waits this long before the catalog hears of it, so that a
/// chatty check doesn't wake everybody (Consul's `check_update_interval`).
const OUTPUT_LAG: Duration = Duration::from_secs(5 * 60);

/// A check that has been critical for less than this never costs a service its registration.
const SHORTEST_DEREGISTER_AFTER: Duration = Duration::from_secs(60);

/// The services and checks of this agent. Unlike in the catalog, ids differ by case.
#[derive(Debug)]
pub(crate) struct Local {
    node: Node,
    services: BTreeMap<String, ServiceRecord>,
    checks: BTreeMap<String, CheckRecord>,
}

#[derive(Debug)]
struct ServiceRecord {
    service: Arc<Service>,
    checks: BTreeSet<String>,
}

/// A check as this agent knows it: its output may be ahead of the catalog's.
#[derive(Debug)]
pub(crate) struct CheckRecord {
    pub check: Arc<Check>,
    /// What it does; nothing if it is there for maintenance.
    pub definition: Option<Arc<CheckDefinition>>,
    critical_since: Option<Instant>,
    deregister_after: Option<Duration>,
    /// Since when the catalog shows an older output.
    output_ahead_since: Option<Instant>,
}

/// A check to register.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewCheck {
    pub check: Check,
    /// What it does; nothing if it is there for maintenance.
    pub definition: Option<Arc<CheckDefinition>>,
    /// How long it may be critical before its service is removed.
    pub deregister_after: Option<Duration>,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub status: Status,
    pub output: String,
}

impl Local {
    pub(super) fn new(node: &Node) -> Self {
        Self {
            node: node.clone(),
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
        }
    }

    /// The node that this agent is.
    pub(crate) fn node_name(&self) -> &str {
        &self.node.name
    }

    /// In order of their ids.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|record| &record.service)
    }

    pub(crate) fn service(&self, id: &str) -> Option<&Arc<Service>> {
        Some(&self.services.get(id)?.service)
    }

    /// In order of their ids.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &CheckRecord> {
        self.checks.values()
    }

    pub(crate) fn check(&self, id: &str) -> Option<&CheckRecord> {
        self.checks.get(id)
    }

    /// The checks of one service, in order of their ids.
    pub(crate) fn checks_of(&self, service_id: &str) -> impl Iterator<Item = &Arc<Check>> {
        let ids = self.services.get(service_id).map(|record| &record.checks);
        ids.into_iter()
            .flatten()
            .filter_map(|id| Some(&self.checks.get(id)?.check))
    }

    /// The services that have a check which has been critical for longer than it may.
    pub(crate) fn overdue(&self, now: Instant) -> BTreeSet<String> {
        self.checks
            .values()
            .filter(|record| !record.check.service_id.is_empty())
            .filter(
                |record| match (record.critical_since, record.deregister_after) {
                    (Some(since), Some(after)) => now.saturating_duration_since(since) > after,
                    _ => false,
                },
            )
            .map(|record| record.check.service_id.clone())
            .collect()
    }
}

/// Changes to what is registered here, written through to the catalog.
impl State {
    /// Registers an instance with its checks. Checks it had before stay, unless `replace_checks`.
    /// Returns the ids of the checks that went.
    pub(crate) fn register_service(
        &mut self,
        service: Service,
        checks: Vec<NewCheck>,
        replace_checks: bool,
        changes: &mut Changes,
    ) -> Vec<String> {
        let id = service.id.clone();
        if !self.catalog.has_node(&self.local.node.name) {
            self.catalog.put_node(self.local.node.clone(), changes);
        }
        self.catalog
            .put_service(&self.local.node.name, service.clone(), changes);
        let service = Arc::new(service);
        let kept: BTreeSet<String> = checks.iter().map(|new| new.check.id.clone()).collect();
        let record = self
            .local
            .services
            .entry(id)
            .or_insert_with(|| ServiceRecord {
                service: Arc::clone(&service),
                checks: BTreeSet::new(),
            });
        record.service = Arc::clone(&service);
        changes.record(|| Record::Service(service));
        let dropped: Vec<String> = match replace_checks {
            true => record.checks.difference(&kept).cloned().collect(),
            false => Vec::new(),
        };
        for id in &dropped {
            self.deregister_check(id, changes);
        }
        for check in checks {
            self.register_check(check, changes);
        }
        dropped
    }

    /// Makes the catalog say of this node what this agent knows, whatever was written to it since:
    /// what is foreign goes, what is missing comes back. A service whose tags may be overridden
    /// keeps those of the catalog. `own` are the service and the check that no client registers.
    pub(crate) fn anti_entropy(&mut self, own: [&str; 2], changes: &mut Changes) {
        self.catalog.put_node(self.local.node.clone(), changes);
        let name = self.local.node.name.clone();
        let Some((_, _, known)) = self.catalog.node(&name) else {
            return;
        };
        let known: Vec<_> = known.cloned().collect();
        for there in known {
            match self.local.services.get_mut(&there.id) {
                Some(record) if there.enable_tag_override && record.service.enable_tag_override => {
                    Arc::make_mut(&mut record.service)
                        .tags
                        .clone_from(&there.tags);
                }
                Some(_) => {}
                None if there.id == own[0] => {}
                None => {
                    self.catalog.remove_service(&name, &there.id, changes);
                }
            }
        }
        for record in self.local.services.values() {
            let service = Service::clone(&record.service);
            self.catalog.put_service(&name, service, changes);
        }
        for there in self.catalog.checks_of_node(&name).1 {
            if there.id != own[1] && !self.local.checks.contains_key(&there.id) {
                self.catalog.remove_check(&name, &there.id, changes);
            }
        }
        let (_, there) = self.catalog.checks_of_node(&name);
        let there: BTreeMap<_, _> = there
            .iter()
            .map(|check| (check.id.clone(), check.status))
            .collect();
        for record in self.local.checks.values() {
            // An output alone has its own time.
            if there.get(&record.check.id) != Some(&record.check.status) {
                self.catalog.put_check(Check::clone(&record.check), changes);
            }
        }
    }

    /// Removes an instance and its checks. Returns the ids of the checks, or nothing if there is
    /// no such service.
    pub(crate) fn deregister_service(
        &mut self,
        id: &str,
        changes: &mut Changes,
    ) -> Option<BTreeSet<String>> {
        let record = self.local.services.remove(id)?;
        for id in &record.checks {
            self.local.checks.remove(id);
        }
        self.catalog
            .remove_service(&self.local.node.name, id, changes);
        changes.record(|| Record::ServiceGone(id.to_owned()));
        Some(record.checks)
    }

    /// Registers a check. One that is known keeps its status and output, so that registering
    /// again never looks like an outage.
    pub(crate) fn register_check(&mut self, new: NewCheck, changes: &mut Changes) {
        let NewCheck {
            mut check,
            definition,
            deregister_after,
        } = new;
        let old = self.local.checks.remove(&check.id);
        if let Some(old) = &old {
            check.status = old.check.status;
            check.output.clone_from(&old.check.output);
            if old.check.service_id != check.service_id
                && let Some(record) = self.local.services.get_mut(&old.check.service_id)
            {
                record.checks.remove(&check.id);
            }
        }
        if let Some(record) = self.local.services.get_mut(&check.service_id) {
            record.checks.insert(check.id.clone());
        }
        self.catalog.put_check(check.clone(), changes);
        let check = Arc::new(check);
        changes.record(|| Record::Check {
            check: Arc::clone(&check),
            definition: definition.clone(),
        });
        self.local.checks.insert(
            check.id.clone(),
            CheckRecord {
                check,
                definition,
                critical_since: old.and_then(|old| old.critical_since),
                deregister_after: deregister_after
                    .filter(|after| !after.is_zero())
                    .map(|after| after.max(SHORTEST_DEREGISTER_AFTER)),
                output_ahead_since: None,
            },
        );
    }

    /// Removes a check; whether it was there.
    pub(crate) fn deregister_check(&mut self, id: &str, changes: &mut Changes) -> bool {
        let Some(record) = self.local.checks.remove(id) else {
            return false;
        };
        if let Some(service) = self.local.services.get_mut(&record.check.service_id) {
            service.checks.remove(id);
        }
        self.catalog
            .remove_check(&self.local.node.name, id, changes);
        changes.record(|| Record::CheckGone(id.to_owned()));
        true
    }

    /// Takes note of what a check found. The catalog hears of a new status at once, of a new
    /// output alone only later.
    pub(crate) fn report(
        &mut self,
        id: &str,
        outcome: Outcome,
        now: Instant,
        changes: &mut Changes,
    ) {
        let Some(record) = self.local.checks.get_mut(id) else {
            return;
        };
        record.critical_since = match outcome.status {
            Status::Critical => record.critical_since.or(Some(now)),
            _ => None,
        };
        let status_is_new = record.check.status != outcome.status;
        if !status_is_new && record.check.output == outcome.output {
            return;
        }
        // What a check that looks for itself has to say first is never held back: it tells why a
        // new service isn't well.
        let is_first = record.check.output.is_empty() && record.check.kind != "ttl";
        let check = Arc::make_mut(&mut record.check);
        check.status = outcome.status;
        check.output = outcome.output;
        if status_is_new || is_first {
            changes.record(|| Record::Found {
                check: check.id.clone(),
                status: check.status,
                output: check.output.clone(),
            });
            record.output_ahead_since = None;
            self.catalog.put_check(check.clone(), changes);
        } else {
            record.output_ahead_since.get_or_insert(now);
        }
    }

    /// Brings the catalog up to date with outputs that have been ahead of it for long enough.
    pub(crate) fn settle_outputs(&mut self, now: Instant, changes: &mut Changes) {
        for record in self.local.checks.values_mut() {
            if let Some(since) = record.output_ahead_since
                && now.saturating_duration_since(since) >= OUTPUT_LAG
            {
                record.output_ahead_since = None;
                self.catalog.put_check(Check::clone(&record.check), changes);
            }
        }
    }
}
