//! The services and checks that clients have registered with this agent. Keeps the store consistent
//! with the tasks that run the checks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::checks::{CheckRunner, RunningCheck};
use crate::decode::{ServiceDefinition, sidecar_id};
use crate::store::{
    Check, CheckDefinition, CheckResult, CheckStatus, JournalRecord, NewCheck, RestoredState,
    Service, Store,
};

const NODE_MAINTENANCE: &str = "_node_maintenance";

/// The services and checks of this agent, and the tasks that run the checks.
#[derive(Debug)]
pub(crate) struct AgentServices {
    node: String,
    store: Arc<Store>,
    runner: CheckRunner,
    /// The running checks by id. Locked before the store, so that both change in the same order.
    running: Mutex<HashMap<String, RunningCheck>>,
}

impl AgentServices {
    pub(crate) fn new(node: String, store: Arc<Store>, runner: CheckRunner) -> Self {
        Self {
            node,
            store,
            runner,
            running: Mutex::default(),
        }
    }

    /// Registers an instance and starts its checks. The error is Consul's.
    pub(crate) fn register_service(
        &self,
        definition: ServiceDefinition,
        replace_checks: bool,
    ) -> Result<(), String> {
        let (service, definitions) = definition.into_parts();
        let count = definitions.len();
        let mut checks = Vec::with_capacity(count);
        let mut to_run = Vec::with_capacity(count);
        for (i, check) in definitions.into_iter().enumerate() {
            self.runner.validate(&check)?;
            let id = match (check.id.as_str(), count) {
                ("", 1) => format!("service:{}", service.id),
                ("", _) => format!("service:{}:{}", service.id, i + 1),
                (id, _) => id.to_owned(),
            };
            let name = match check.name.as_str() {
                "" => format!("Service '{}' check", service.name),
                name => name.to_owned(),
            };
            let check = Arc::new(check);
            to_run.push((id.clone(), Arc::clone(&check)));
            checks.push(self.new_check(check, id, name, Some(&service)));
        }
        tracing::debug!(service = %service.id, "service registered");
        let mut running = self.running();
        let removed = self.store.write(|state, changes| {
            let catalog = &mut state.catalog;
            let local = &mut state.local;
            local.register_service(service, checks, replace_checks, catalog, changes)
        });
        for id in removed {
            running.remove(&id);
        }
        for (id, check) in to_run {
            self.run(&mut running, id, check);
        }
        Ok(())
    }

    /// Registers the sidecar of an instance. Without a port it keeps the port of its last registration,
    /// or gets the first free one. The error is Consul's.
    pub(crate) fn register_sidecar(
        &self,
        mut sidecar: ServiceDefinition,
        replace_checks: bool,
    ) -> Result<(), String> {
        let service = &mut sidecar.service;
        if service.port < 1 {
            service.port = self
                .store
                .read(|state| state.local.sidecar_port(&service.id))
                .ok_or("none left in the configured range [21000, 21255]")?;
        }
        service.add_derived_addresses();
        sidecar.add_sidecar_checks();
        self.register_service(sidecar, replace_checks)
    }

    /// Removes an instance, its checks and its sidecar. Does nothing if it doesn't exist.
    pub(crate) fn deregister_service(&self, id: &str) {
        let sidecar_id = sidecar_id(id);
        let is_sidecar = |service: &Arc<Service>| {
            service.is_connect_proxy() && service.proxy.config().destination_service_id == id
        };
        let has_sidecar = self
            .store
            .read(|state| state.local.service(&sidecar_id).is_some_and(is_sidecar));
        if has_sidecar {
            self.deregister_one(&sidecar_id);
        }
        self.deregister_one(id);
    }

    fn deregister_one(&self, id: &str) {
        let mut running = self.running();
        let checks = self.store.write(|state, changes| {
            state
                .local
                .deregister_service(id, &mut state.catalog, changes)
        });
        for id in checks.into_iter().flatten() {
            running.remove(&id);
        }
        tracing::debug!(service = %id, "service deregistered");
    }

    /// Registers a check and starts it. The error is Consul's.
    pub(crate) fn register_check(&self, definition: CheckDefinition) -> Result<(), String> {
        self.runner.validate(&definition)?;
        let definition = Arc::new(definition);
        let service_id = definition.service_id.as_str();
        let mut running = self.running();
        let service = self
            .store
            .read(|state| state.local.service(service_id).cloned());
        if service.is_none() && !service_id.is_empty() {
            return Err(format!("ServiceID {service_id:?} does not exist"));
        }
        let (id, name) = (definition.id.clone(), definition.name.clone());
        let check = Arc::clone(&definition);
        let new = self.new_check(check, id.clone(), name, service.as_deref());
        self.store.write(|state, changes| {
            state.local.register_check(new, &mut state.catalog, changes);
        });
        self.run(&mut running, id, definition);
        Ok(())
    }

    /// Removes a check and stops its task. Does nothing if it doesn't exist.
    pub(crate) fn deregister_check(&self, id: &str) {
        let mut running = self.running();
        self.store.write(|state, changes| {
            state
                .local
                .deregister_check(id, &mut state.catalog, changes)
        });
        running.remove(id);
    }

    /// Updates a TTL check. The error is Consul's.
    pub(crate) fn update_ttl(&self, id: &str, result: CheckResult) -> Result<(), String> {
        let ttl = self.running().get(id).and_then(RunningCheck::ttl);
        let ttl = ttl.ok_or_else(|| format!("CheckID {id:?} does not have associated TTL"))?;
        ttl.report(result, &self.store);
        Ok(())
    }

    /// Turns the maintenance mode of an instance on or off. It is a critical check.
    pub(crate) fn set_service_maintenance(&self, service: &Service, enable: bool, reason: &str) {
        let check = Check {
            id: format!("_service_maintenance:{}", service.id),
            name: "Service Maintenance Mode".to_owned(),
            notes: reason_or_default(reason, "service"),
            service_id: service.id.clone(),
            service_name: service.name.clone(),
            service_tags: service.tags.clone(),
            ..Check::default()
        };
        self.set_maintenance(check, enable);
    }

    /// Turns the maintenance mode of this node on or off. It is a critical check.
    pub(crate) fn set_node_maintenance(&self, enable: bool, reason: &str) {
        let check = Check {
            id: NODE_MAINTENANCE.to_owned(),
            name: "Node Maintenance Mode".to_owned(),
            notes: reason_or_default(reason, "node"),
            ..Check::default()
        };
        self.set_maintenance(check, enable);
    }

    /// Deregisters the services with a check that has been critical for too long, and returns their
    /// ids. Also writes deferred check outputs to the catalog.
    pub(crate) fn reap(&self) -> Vec<String> {
        let now = Instant::now().into_std();
        let reaped = self.store.read(|state| state.local.services_to_reap(now));
        for id in &reaped {
            tracing::info!(service = %id, "service deregistered: critical for too long");
            self.deregister_service(id);
        }
        self.store.write(|state, changes| {
            state
                .local
                .sync_deferred_outputs(now, &mut state.catalog, changes);
        });
        reaped.into_iter().collect()
    }

    /// Restores services and checks after a restart. Probes run at once, TTL checks get their whole
    /// TTL again.
    pub(crate) fn restore(&self, restored: &RestoredState) {
        let mut running = self.running();
        self.store.write(|state, changes| {
            let (local, catalog) = (&mut state.local, &mut state.catalog);
            for service in restored.services.values() {
                let service = Service::clone(service);
                local.register_service(service, Vec::new(), false, catalog, changes);
            }
            for (check, definition) in restored.checks.values() {
                let mut check = Check::clone(check);
                check.node.clone_from(&self.node);
                check.definition = None;
                let deregister_after = definition.as_ref().and_then(|it| it.deregister_after());
                let new = NewCheck {
                    check,
                    definition: definition.clone(),
                    deregister_after,
                };
                local.register_check(new, catalog, changes);
            }
        });
        for (id, (_, definition)) in &restored.checks {
            if let Some(definition) = definition
                && self.runner.validate(definition).is_ok()
            {
                self.run(&mut running, id.clone(), Arc::clone(definition));
            }
        }
    }

    /// Undoes changes that can't be written. See [`Store::roll_back`].
    pub(crate) fn roll_back(&self, unwritten: Vec<JournalRecord>, on_disk: &RestoredState) -> u64 {
        let mut running = self.running();
        let (count, checks) = self.store.roll_back(unwritten, on_disk);
        for id in checks {
            running.remove(&id);
            let definition = self
                .store
                .read(|state| state.local.check(&id)?.definition.clone());
            if let Some(definition) = definition
                && self.runner.validate(&definition).is_ok()
            {
                self.run(&mut running, id, definition);
            }
        }
        count
    }

    /// Stops all checks.
    pub(crate) fn stop(&self) {
        self.running().clear();
    }

    /// Does nothing if the maintenance mode is already on, so that its reason stays.
    fn set_maintenance(&self, check: Check, enable: bool) {
        if !enable {
            return self.deregister_check(&check.id);
        }
        let check = Check {
            node: self.node.clone(),
            status: CheckStatus::Critical,
            kind: Check::MAINTENANCE.to_owned(),
            ..check
        };
        self.store.write(|state, changes| {
            if state.local.check(&check.id).is_none() {
                let new = NewCheck {
                    check,
                    definition: None,
                    deregister_after: None,
                };
                state.local.register_check(new, &mut state.catalog, changes);
            }
        });
    }

    fn new_check(
        &self,
        definition: Arc<CheckDefinition>,
        id: String,
        name: String,
        service: Option<&Service>,
    ) -> NewCheck {
        let of_service = |field: fn(&Service) -> &String| service.map(field).cloned();
        let kind = definition.kind().map_or("", |kind| kind.as_str());
        NewCheck {
            check: Check {
                node: self.node.clone(),
                id,
                name,
                status: definition.initial_status().unwrap_or_default(),
                notes: definition.notes.clone(),
                service_id: of_service(|service| &service.id).unwrap_or_default(),
                service_name: of_service(|service| &service.name).unwrap_or_default(),
                service_tags: service.map(|s| s.tags.clone()).unwrap_or_default(),
                kind: kind.to_owned(),
                ..Check::default()
            },
            deregister_after: definition.deregister_after(),
            definition: Some(definition),
        }
    }

    /// Starts a check and stops the one with the same id. A probe with the same definition keeps
    /// running.
    fn run(
        &self,
        running: &mut HashMap<String, RunningCheck>,
        id: String,
        check: Arc<CheckDefinition>,
    ) {
        if running.get(&id).is_some_and(|known| known.runs(&check)) {
            return;
        }
        let started = self.runner.start(id.clone(), check, &self.store);
        running.insert(id, started);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, RunningCheck>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reason_or_default(reason: &str, of: &str) -> String {
    match reason {
        "" => format!(
            "Maintenance mode is enabled for this {of}, but no reason was provided. \
             This is a default message."
        ),
        reason => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;
    use crate::decode;
    use crate::store::Node;

    fn agent_services() -> AgentServices {
        let node = Node {
            name: "n1".to_owned(),
            ..Node::default()
        };
        let runner = CheckRunner::new(fastrand::Rng::with_seed(1));
        AgentServices::new("n1".to_owned(), Arc::new(Store::new(node)), runner)
    }

    fn register(services: &AgentServices, body: &str) {
        let definition = decode::from_slice(body.as_bytes()).unwrap();
        services.register_service(definition, false).unwrap();
    }

    fn is_registered(services: &AgentServices, id: &str) -> bool {
        let store = &services.store;
        store.read(|state| state.local.service(id).is_some())
    }

    fn passing() -> CheckResult {
        CheckResult {
            status: CheckStatus::Passing,
            output: String::new(),
        }
    }

    /// Reaps every 30 s, as the agent does, and returns how long the service was registered.
    async fn reap_until_gone(services: &AgentServices, id: &str) -> Duration {
        let start = Instant::now();
        while is_registered(services, id) {
            sleep(Duration::from_secs(30)).await;
            services.reap();
            assert!(
                start.elapsed() < Duration::from_secs(600),
                "{id} is never reaped"
            );
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_is_reaped_a_minute_after_its_last_report_at_the_earliest() {
        let services = agent_services();
        let body = r#"{"Name":"web","Check":{"TTL":"10s","Status":"passing",
            "DeregisterCriticalServiceAfter":"1s"}}"#;
        register(&services, body);
        let lifetime = reap_until_gone(&services, "web").await;
        assert_eq!(lifetime, Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_recovers_is_not_reaped() {
        let services = agent_services();
        let body = r#"{"Name":"web","Check":{"TTL":"10s","DeregisterCriticalServiceAfter":"1m"}}"#;
        register(&services, body);
        for _ in 0..20 {
            sleep(Duration::from_secs(30)).await;
            services.update_ttl("service:web", passing()).unwrap();
            services.reap();
        }
        assert!(is_registered(&services, "web"));
    }

    #[tokio::test(start_paused = true)]
    async fn deregistering_a_service_stops_its_checks() {
        let services = agent_services();
        register(&services, r#"{"Name":"web","Check":{"TTL":"10s"}}"#);
        assert_eq!(services.running().len(), 1);
        services.deregister_service("web");
        assert!(services.running().is_empty());
        assert!(services.update_ttl("service:web", passing()).is_err());
    }
}
