//! The services and checks that are registered with this agent. Every change is written through to
//! the catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::catalog::Catalog;
use super::changes::Changes;
use super::journal_record::JournalRecord;
use super::model::{Check, CheckStatus, Node, Service};
use crate::store::CheckDefinition;

/// The delay before a change of only the output of a check reaches the catalog, so that a check
/// with varying output doesn't wake every watcher (Consul's `check_update_interval`).
const OUTPUT_SYNC_DELAY: Duration = Duration::from_secs(150);

/// The minimum time that a check must be critical before its service is deregistered.
const MIN_DEREGISTER_AFTER: Duration = Duration::from_secs(60);

/// The ports of sidecars that are registered without one (Consul's `sidecar_min_port` and
/// `sidecar_max_port`).
const SIDECAR_PORTS: RangeInclusive<i64> = 21_000..=21_255;

/// The services and checks of this agent. Unlike in the catalog, ids are case-sensitive.
#[derive(Debug)]
pub(crate) struct LocalState {
    node: Node,
    services: BTreeMap<String, ServiceRecord>,
    checks: BTreeMap<String, CheckRecord>,
}

#[derive(Debug)]
struct ServiceRecord {
    service: Arc<Service>,
    /// The ids of its checks, sorted. A set would take 300 bytes even for one id.
    checks: Vec<String>,
}

/// A check of this agent. Its output may be newer than in the catalog.
#[derive(Debug)]
pub(crate) struct CheckRecord {
    pub check: Arc<Check>,
    /// `None` for a maintenance check.
    pub definition: Option<Arc<CheckDefinition>>,
    /// How often the check has run, or a client has reported its status.
    pub runs: u64,
    pub last_run: Option<SystemTime>,
    critical_since: Option<Instant>,
    deregister_after: Option<Duration>,
    /// When the output became newer than in the catalog.
    output_unsynced_since: Option<Instant>,
}

/// A check to register.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewCheck {
    pub check: Check,
    /// `None` for a maintenance check.
    pub definition: Option<Arc<CheckDefinition>>,
    /// How long the check may be critical before its service is deregistered.
    pub deregister_after: Option<Duration>,
}

/// The result of running a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckResult {
    pub status: CheckStatus,
    pub output: String,
}

impl ServiceRecord {
    fn add_check(&mut self, id: &str) {
        if let Err(at) = self.checks.binary_search_by(|known| known.as_str().cmp(id)) {
            self.checks.reserve_exact(1);
            self.checks.insert(at, id.to_owned());
        }
    }

    fn remove_check(&mut self, id: &str) {
        self.checks.retain(|known| known != id);
    }
}

/// A check of this agent, shared with the catalog, which saves memory. Its indexes are those of the
/// catalog.
fn shared(mut check: Check, node: &str, catalog: &Catalog) -> Arc<Check> {
    if let Some(registered) = catalog.check_on(node, &check.id) {
        check.create_index = registered.create_index;
        check.modify_index = registered.modify_index;
        if **registered == check {
            return Arc::clone(registered);
        }
    }
    Arc::new(check)
}

impl LocalState {
    pub(super) fn new(node: &Node) -> Self {
        Self {
            node: node.clone(),
            services: BTreeMap::new(),
            checks: BTreeMap::new(),
        }
    }

    /// The name of this agent's node.
    pub(crate) fn node_name(&self) -> &str {
        &self.node.name
    }

    /// Sorted by id.
    pub(crate) fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|record| &record.service)
    }

    pub(crate) fn service(&self, id: &str) -> Option<&Arc<Service>> {
        Some(&self.services.get(id)?.service)
    }

    /// The port for a sidecar: that of its last registration, or the first free one.
    pub(crate) fn sidecar_port(&self, id: &str) -> Option<i64> {
        let known = self.service(id).map(|service| service.port);
        if let Some(port) = known.filter(|port| SIDECAR_PORTS.contains(port)) {
            return Some(port);
        }
        let used: BTreeSet<i64> = self.services().map(|service| service.port).collect();
        SIDECAR_PORTS.into_iter().find(|port| !used.contains(port))
    }

    /// Sorted by id.
    pub(crate) fn checks(&self) -> impl Iterator<Item = &CheckRecord> {
        self.checks.values()
    }

    pub(crate) fn check(&self, id: &str) -> Option<&CheckRecord> {
        self.checks.get(id)
    }

    /// The checks of one service, sorted by id.
    pub(crate) fn checks_of(&self, service_id: &str) -> impl Iterator<Item = &Arc<Check>> {
        let ids = self.services.get(service_id).map(|record| &record.checks);
        ids.into_iter()
            .flatten()
            .filter_map(|id| Some(&self.checks.get(id)?.check))
    }

    /// The ids of the services with a check that has been critical for longer than its
    /// `DeregisterCriticalServiceAfter`.
    pub(crate) fn services_to_reap(&self, now: Instant) -> BTreeSet<String> {
        let checks = self.checks.values();
        let overdue =
            checks.filter(
                |record| match (record.critical_since, record.deregister_after) {
                    (Some(since), Some(after)) => now.saturating_duration_since(since) > after,
                    _ => false,
                },
            );
        overdue
            .map(|record| record.check.service_id.clone())
            .filter(|service_id| !service_id.is_empty())
            .collect()
    }

    /// Registers an instance with its checks. With `replace_checks`, its other checks are removed.
    /// Returns the ids of the removed checks.
    pub(crate) fn register_service(
        &mut self,
        service: Service,
        checks: Vec<NewCheck>,
        replace_checks: bool,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) -> Vec<String> {
        let id = service.id.clone();
        if !catalog.has_node(&self.node.name) {
            catalog.put_node(self.node.clone(), changes);
        }
        catalog.put_service(&self.node.name, service, changes);
        // Shared with the catalog, which saves memory.
        let Some(service) = catalog.service_on(&self.node.name, &id).cloned() else {
            return Vec::new();
        };
        let new_ids: BTreeSet<String> = checks.iter().map(|new| new.check.id.clone()).collect();
        let record = self.services.entry(id).or_insert_with(|| ServiceRecord {
            service: Arc::clone(&service),
            checks: Vec::new(),
        });
        record.service = Arc::clone(&service);
        changes.record(|| JournalRecord::Service(service));
        let removed: Vec<String> = if replace_checks {
            let ids = record.checks.iter();
            ids.filter(|id| !new_ids.contains(*id)).cloned().collect()
        } else {
            Vec::new()
        };
        for id in &removed {
            self.deregister_check(id, catalog, changes);
        }
        for check in checks {
            self.register_check(check, catalog, changes);
        }
        removed
    }

    /// Removes an instance and its checks. Returns the ids of the checks, or `None` if there is no
    /// such instance.
    pub(crate) fn deregister_service(
        &mut self,
        id: &str,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) -> Option<Vec<String>> {
        let record = self.services.remove(id)?;
        for id in &record.checks {
            self.checks.remove(id);
        }
        catalog.remove_service(&self.node.name, id, changes);
        changes.record(|| JournalRecord::ServiceRemoved(id.to_owned()));
        Some(record.checks)
    }

    /// Registers a check. A check that is registered again keeps its status and output, so that
    /// this never looks like an outage.
    pub(crate) fn register_check(
        &mut self,
        new: NewCheck,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) {
        let NewCheck {
            mut check,
            definition,
            deregister_after,
        } = new;
        let old = self.checks.remove(&check.id);
        if let Some(old) = &old {
            check.status = old.check.status;
            check.output.clone_from(&old.check.output);
            if old.check.service_id != check.service_id
                && let Some(record) = self.services.get_mut(&old.check.service_id)
            {
                record.remove_check(&check.id);
            }
        }
        if let Some(record) = self.services.get_mut(&check.service_id) {
            record.add_check(&check.id);
        }
        catalog.put_check(check.clone(), changes);
        let check = shared(check, &self.node.name, catalog);
        changes.record(|| JournalRecord::Check {
            check: Arc::clone(&check),
            definition: definition.clone(),
        });
        self.checks.insert(
            check.id.clone(),
            CheckRecord {
                check,
                definition,
                runs: old.as_ref().map_or(0, |old| old.runs),
                last_run: old.as_ref().and_then(|old| old.last_run),
                critical_since: old.and_then(|old| old.critical_since),
                deregister_after: deregister_after
                    .filter(|after| !after.is_zero())
                    .map(|after| after.max(MIN_DEREGISTER_AFTER)),
                output_unsynced_since: None,
            },
        );
    }

    /// Removes a check. Returns whether it existed.
    pub(crate) fn deregister_check(
        &mut self,
        id: &str,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) -> bool {
        let Some(record) = self.checks.remove(id) else {
            return false;
        };
        if let Some(service) = self.services.get_mut(&record.check.service_id) {
            service.remove_check(id);
        }
        catalog.remove_check(&self.node.name, id, changes);
        changes.record(|| JournalRecord::CheckRemoved(id.to_owned()));
        true
    }

    /// Counts a run that doesn't change the status yet.
    pub(crate) fn count_run(&mut self, id: &str, time: SystemTime) {
        if let Some(record) = self.checks.get_mut(id) {
            record.runs += 1;
            record.last_run = Some(time);
        }
    }

    /// Records the result of a check. A new status reaches the catalog at once, a change of only
    /// the output after [`OUTPUT_SYNC_DELAY`].
    pub(super) fn record_check_result(
        &mut self,
        id: &str,
        result: CheckResult,
        now: Instant,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) {
        let Some(record) = self.checks.get_mut(id) else {
            return;
        };
        record.runs += 1;
        record.last_run = Some(changes.time());
        record.critical_since = match result.status {
            CheckStatus::Critical => record.critical_since.or(Some(now)),
            _ => None,
        };
        let is_new_status = record.check.status != result.status;
        if !is_new_status && record.check.output == result.output {
            return;
        }
        // The first output of a probe is never delayed, because it says why a new service is
        // unhealthy.
        let is_first = record.check.output.is_empty() && record.check.kind != "ttl";
        let check = Arc::make_mut(&mut record.check);
        check.status = result.status;
        check.output = result.output;
        if is_new_status || is_first {
            changes.record(|| JournalRecord::CheckResult {
                check: check.id.clone(),
                status: check.status,
                output: check.output.clone(),
            });
            record.output_unsynced_since = None;
            catalog.put_check(check.clone(), changes);
            record.check = shared(check.clone(), &self.node.name, catalog);
        } else {
            record.output_unsynced_since.get_or_insert(now);
        }
    }

    /// Writes the outputs that changed at least [`OUTPUT_SYNC_DELAY`] ago to the catalog.
    pub(crate) fn sync_deferred_outputs(
        &mut self,
        now: Instant,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) {
        for record in self.checks.values_mut() {
            if let Some(since) = record.output_unsynced_since
                && now.saturating_duration_since(since) >= OUTPUT_SYNC_DELAY
            {
                record.output_unsynced_since = None;
                let check = &record.check;
                changes.record(|| JournalRecord::CheckResult {
                    check: check.id.clone(),
                    status: check.status,
                    output: check.output.clone(),
                });
                catalog.put_check(Check::clone(check), changes);
                record.check = shared(Check::clone(check), &self.node.name, catalog);
            }
        }
    }

    /// Makes the catalog consistent with this agent's view of its node, whatever clients have written to
    /// the catalog directly: unknown services and checks are removed, missing ones are added. A
    /// service with `EnableTagOverride` takes its tags from the catalog. `server_service` and
    /// `server_check` are those that the agent itself has added to the catalog.
    pub(crate) fn anti_entropy(
        &mut self,
        server_service: &str,
        server_check: &str,
        catalog: &mut Catalog,
        changes: &mut Changes,
    ) {
        catalog.put_node(self.node.clone(), changes);
        let node = self.node.name.as_str();
        let Some((_, _, services)) = catalog.node(node) else {
            return;
        };
        let services: Vec<_> = services.cloned().collect();
        for registered in services {
            match self.services.get_mut(&registered.id) {
                Some(record) => {
                    if registered.enable_tag_override && record.service.enable_tag_override {
                        let service = Arc::make_mut(&mut record.service);
                        service.tags.clone_from(&registered.tags);
                    }
                }
                None if registered.id == server_service => {}
                None => {
                    catalog.remove_service(node, &registered.id, changes);
                }
            }
        }
        for record in self.services.values() {
            catalog.put_service(node, Service::clone(&record.service), changes);
        }
        for registered in catalog.checks_of_node(node).1 {
            if registered.id != server_check && !self.checks.contains_key(&registered.id) {
                catalog.remove_check(node, &registered.id, changes);
            }
        }
        let (_, registered) = catalog.checks_of_node(node);
        let statuses: BTreeMap<_, _> = registered
            .iter()
            .map(|check| (check.id.as_str(), check.status))
            .collect();
        for record in self.checks.values() {
            // A change of only the output is left to `sync_deferred_outputs`.
            if statuses.get(record.check.id.as_str()) != Some(&record.check.status) {
                catalog.put_check(Check::clone(&record.check), changes);
            }
        }
    }
}
