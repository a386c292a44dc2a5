//! What clients ask of this agent: to know their services and to run their checks. Keeps the
//! store's records and the running checks of one mind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::checks::{Runner, Running};
use crate::decode::{CheckDefinition, ServiceDefinition};
use crate::monitor::{Level, Monitor};
use crate::store::{Check, Kept, NewCheck, Outcome, Service, Status, Store};

const NODE_MAINTENANCE: &str = "_node_maintenance";

/// The services and checks of this agent, and the tasks that run the checks.
#[derive(Debug)]
pub(crate) struct Registration {
    node: String,
    store: Arc<Store>,
    runner: Runner,
    monitor: Arc<Monitor>,
    running: Mutex<HashMap<String, Running>>,
}

impl Registration {
    pub(crate) fn new(node: String, store: Arc<Store>, runner: Runner) -> Self {
        Self {
            node,
            store,
            runner,
            monitor: Arc::default(),
            running: Mutex::default(),
        }
    }

    /// Tells a monitor what it does.
    pub(crate) fn telling(self, monitor: Arc<Monitor>) -> Self {
        Self { monitor, ..self }
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
            self.runner.accepts(&check)?;
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
        self.monitor.say(
            Level::Info,
            format_args!("agent: Synced service: service={}", service.id),
        );
        let mut running = self.running();
        let dropped = self.store.write(|state, changes| {
            state.register_service(service, checks, replace_checks, changes)
        });
        for id in dropped {
            running.remove(&id);
        }
        for (id, check) in to_run {
            self.run(&mut running, id, check);
        }
        Ok(())
    }

    /// Removes an instance, its checks and their tasks. Nothing happens if there is none.
    pub(crate) fn deregister_service(&self, id: &str) {
        let mut running = self.running();
        let checks = self
            .store
            .write(|state, changes| state.deregister_service(id, changes));
        for id in checks.into_iter().flatten() {
            running.remove(&id);
        }
        self.monitor.say(
            Level::Info,
            format_args!("agent: Deregistered service: service={id}"),
        );
    }

    /// Registers a check and starts it. The error is Consul's.
    pub(crate) fn register_check(&self, definition: CheckDefinition) -> Result<(), String> {
        self.runner.accepts(&definition)?;
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
        self.store
            .write(|state, changes| state.register_check(new, changes));
        self.run(&mut running, id, definition);
        Ok(())
    }

    /// Removes a check and ends its task. Nothing happens if there is none.
    pub(crate) fn deregister_check(&self, id: &str) {
        let mut running = self.running();
        self.store
            .write(|state, changes| state.deregister_check(id, changes));
        running.remove(id);
    }

    /// Takes a report for a check that waits for reports. The error is Consul's.
    pub(crate) fn beat(&self, id: &str, outcome: Outcome) -> Result<(), String> {
        let ttl = self.running().get(id).and_then(Running::ttl);
        let ttl = ttl.ok_or_else(|| format!("CheckID {id:?} does not have associated TTL"))?;
        ttl.beat(outcome, &self.store);
        Ok(())
    }

    /// Takes an instance out of traffic with a check that is critical, or back into it.
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

    /// Takes all instances of this node out of traffic, or back into it.
    pub(crate) fn set_node_maintenance(&self, enable: bool, reason: &str) {
        let check = Check {
            id: NODE_MAINTENANCE.to_owned(),
            name: "Node Maintenance Mode".to_owned(),
            notes: reason_or_default(reason, "node"),
            ..Check::default()
        };
        self.set_maintenance(check, enable);
    }

    /// Removes the services whose checks have been critical for longer than they may.
    pub(crate) fn reap(&self) {
        let now = Instant::now().into_std();
        for id in self.store.read(|state| state.local.overdue(now)) {
            tracing::info!(service = %id, "deregistered: critical for too long");
            self.deregister_service(&id);
        }
        self.store
            .write(|state, changes| state.settle_outputs(now, changes));
    }

    /// Takes up services and checks where they were left. Checks that look for themselves do so
    /// at once; those that wait for reports wait their whole time again.
    pub(crate) fn restore(&self, kept: &Kept) {
        let mut running = self.running();
        self.store.write(|state, changes| {
            for service in kept.services.values() {
                let service = Service::clone(service);
                state.register_service(service, Vec::new(), false, changes);
            }
            for (check, definition) in kept.checks.values() {
                let mut check = Check::clone(check);
                check.node.clone_from(&self.node);
                check.definition = None;
                let deregister_after = definition.as_ref().and_then(|it| it.deregister_after());
                let new = NewCheck {
                    check,
                    definition: definition.clone(),
                    deregister_after,
                };
                state.register_check(new, changes);
            }
        });
        for (id, (_, definition)) in &kept.checks {
            if let Some(definition) = definition
                && self.runner.accepts(definition).is_ok()
            {
                self.run(&mut running, id.clone(), Arc::clone(definition));
            }
        }
    }

    /// Ends all checks.
    pub(crate) fn stop(&self) {
        self.running().clear();
    }

    /// A maintenance that is on stays as it is, with its reason.
    fn set_maintenance(&self, check: Check, enable: bool) {
        if !enable {
            return self.deregister_check(&check.id);
        }
        let check = Check {
            node: self.node.clone(),
            status: Status::Critical,
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
                state.register_check(new, changes);
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

    /// Starts a check, in the place of one with its id. One that already does the same goes on.
    fn run(&self, running: &mut HashMap<String, Running>, id: String, check: Arc<CheckDefinition>) {
        if running.get(&id).is_some_and(|known| known.does(&check)) {
            return;
        }
        let started = self.runner.start(id.clone(), check, &self.store);
        running.insert(id, started);
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
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

    fn registration() -> Registration {
        let node = Node {
            name: "n1".to_owned(),
            ..Node::default()
        };
        let runner = Runner::new(fastrand::Rng::with_seed(1));
        Registration::new("n1".to_owned(), Arc::new(Store::new(node)), runner)
    }

    fn register(registration: &Registration, body: &str) {
        let definition = decode::from_slice(body.as_bytes()).unwrap();
        registration.register_service(definition, false).unwrap();
    }

    fn has(registration: &Registration, id: &str) -> bool {
        let store = &registration.store;
        store.read(|state| state.local.service(id).is_some())
    }

    /// Reaps every 30 s, as the agent does, and tells for how long the service stayed.
    async fn reap_until_gone(registration: &Registration, id: &str) -> Duration {
        let start = Instant::now();
        while has(registration, id) {
            sleep(Duration::from_secs(30)).await;
            registration.reap();
            assert!(
                start.elapsed() < Duration::from_secs(600),
                "{id} is never reaped"
            );
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_whose_report_never_comes_again_is_removed_after_a_minute_or_more() {
        let registration = registration();
        let body = r#"{"Name":"web","Check":{"TTL":"10s","Status":"passing",
            "DeregisterCriticalServiceAfter":"1s"}}"#;
        register(&registration, body);
        let stayed = reap_until_gone(&registration, "web").await;
        assert_eq!(stayed, Duration::from_secs(90));
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_recovers_stays() {
        let registration = registration();
        let body = r#"{"Name":"web","Check":{"TTL":"10s","DeregisterCriticalServiceAfter":"1m"}}"#;
        register(&registration, body);
        for _ in 0..20 {
            sleep(Duration::from_secs(30)).await;
            let outcome = Outcome {
                status: Status::Passing,
                output: String::new(),
            };
            registration.beat("service:web", outcome).unwrap();
            registration.reap();
        }
        assert!(has(&registration, "web"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_goes_takes_its_task_along() {
        let registration = registration();
        register(&registration, r#"{"Name":"web","Check":{"TTL":"10s"}}"#);
        assert_eq!(registration.running().len(), 1);
        registration.deregister_service("web");
        assert!(registration.running().is_empty());
        assert!(
            registration
                .beat(
                    "service:web",
                    Outcome {
                        status: Status::Passing,
                        output: String::new(),
                    }
                )
                .is_err()
        );
    }
}
