//! Registers instances of programs that don't use Waypost themselves.
//!
//! This is not in the runner, because it uses the registrar of the `waypost` library, on which the runner
//! doesn't depend. The runner reports the states of the instances, and this module registers them
//! accordingly. The health of an instance is its readiness according to the runner. It is reported at
//! each change and as a heartbeat. So only the runner checks a program, and the registry learns of each
//! change at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use waypost::provider::Provider;
use waypost::{Check, HealthChecks, Host, Registrar, RegistrationState, ServiceRegistration};
use waypost_runner::control::Control;
use waypost_runner::{InstanceState, InstanceStatus, Supervisor};

use super::file_stack::OnBehalf;

/// How long an instance stays healthy in the registry after the last report; a third of it is the
/// interval of the reports.
const TTL: Duration = Duration::from_secs(15);

/// Keeps the instances registered, in a task.
pub(super) struct Registrations {
    task: JoinHandle<()>,
    end: watch::Sender<bool>,
}

impl Registrations {
    /// Starts to register instances with this registry.
    pub(super) fn start(
        provider: Arc<dyn Provider>,
        services: BTreeMap<String, OnBehalf>,
        supervisor: Supervisor,
        control: Control,
    ) -> Self {
        let end = watch::Sender::new(false);
        let mut ended = end.subscribe();
        let task = tokio::spawn(async move {
            let mut reconciler = Reconciler {
                provider,
                services,
                control,
                registered: HashMap::new(),
            };
            let mut events = supervisor.events();
            loop {
                reconciler.reconcile(&supervisor.statuses());
                tokio::select! {
                    event = events.next() => if event.is_none() { break },
                    _ = ended.wait_for(|ended| *ended) => break,
                }
            }
            reconciler.deregister_all().await;
        });
        Self { task, end }
    }

    /// Deregisters all instances. Returns when that is done or has failed.
    pub(super) async fn end(self) {
        self.end.send_replace(true);
        let _ = self.task.await;
    }
}

/// The desired and the actual registrations.
struct Reconciler {
    provider: Arc<dyn Provider>,
    services: BTreeMap<String, OnBehalf>,
    control: Control,
    /// The registrations by instance.
    registered: HashMap<String, Registered>,
}

struct Registered {
    port: u16,
    health: Arc<Mutex<Result<(), String>>>,
    registrar: Arc<Registrar>,
}

impl Reconciler {
    fn reconcile(&mut self, statuses: &[InstanceStatus]) {
        let wanted: HashMap<&str, &InstanceStatus> = statuses
            .iter()
            .filter(|status| self.services.contains_key(&status.service))
            .filter(|status| status.port.is_some() && health(status).is_some())
            .map(|status| (status.instance.as_str(), status))
            .collect();
        let gone: Vec<String> = self
            .registered
            .iter()
            .filter(|(instance, registered)| {
                let status = wanted.get(instance.as_str());
                status.and_then(|status| status.port) != Some(registered.port)
            })
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in gone {
            if let Some(Registered { registrar, .. }) = self.registered.remove(&instance) {
                tokio::spawn(async move { registrar.deregister().await });
            }
            self.control.set_registered(&instance, false);
        }
        for (instance, status) in wanted {
            let (Some(port), Some(health)) = (status.port, health(status)) else {
                continue;
            };
            match self.registered.get(instance) {
                Some(known) => known.set_health(health),
                None => self.register(status, port, health),
            }
        }
    }

    fn register(&mut self, status: &InstanceStatus, port: u16, health: Result<(), String>) {
        let Some(service) = self.services.get(&status.service) else {
            return;
        };
        let health = Arc::new(Mutex::new(health));
        let registration = registration(service, status, port, &health);
        let started = registration
            .and_then(|registration| Registrar::start(Arc::clone(&self.provider), registration));
        let registrar = match started {
            Ok(registrar) => Arc::new(registrar),
            Err(error) => {
                tracing::error!("{} can't be registered: {error}", status.instance);
                // Not retried at each change.
                self.services.remove(&status.service);
                return;
            }
        };
        let (control, instance) = (self.control.clone(), status.instance.clone());
        let waiting = Arc::clone(&registrar);
        tokio::spawn(async move {
            // Also ends if the instance is deregistered first.
            waiting.registered().await;
            if matches!(waiting.state(), RegistrationState::Registered) {
                control.set_registered(&instance, true);
            }
        });
        let registered = Registered {
            port,
            health,
            registrar,
        };
        self.registered.insert(status.instance.clone(), registered);
    }

    async fn deregister_all(self) {
        let all = self.registered.values().map(|it| it.registrar.deregister());
        join_all(all).await;
    }
}

impl Registered {
    fn set_health(&self, health: Result<(), String>) {
        let mut current = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != health {
            *current = health;
            drop(current);
            self.registrar.report_now();
        }
    }
}

/// The health to report for an instance. `None` if it should not be registered.
fn health(status: &InstanceStatus) -> Option<Result<(), String>> {
    match status.state {
        InstanceState::Healthy => Some(Ok(())),
        InstanceState::Unhealthy => Some(Err(status.reason.clone().unwrap_or_default())),
        // It is or was running, so it stays registered, and the registry shows the reason.
        InstanceState::Starting | InstanceState::CrashLooping { .. } | InstanceState::Failed
            if status.started.is_some() =>
        {
            Some(Err(status.to_string()))
        }
        _ => None,
    }
}

fn registration(
    service: &OnBehalf,
    status: &InstanceStatus,
    port: u16,
    health: &Arc<Mutex<Result<(), String>>>,
) -> Result<ServiceRegistration, waypost::Error> {
    let details = &service.details;
    let name = details.name.as_deref().unwrap_or(&status.service);
    let host: Host = match &service.host {
        Some(host) => host.parse()?,
        None => status.host.into(),
    };
    let current = Arc::clone(health);
    let checks = HealthChecks::new(name).check("ready", move || {
        let health = current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        async move { health }
    });
    let mut registration = ServiceRegistration::new(name, port)?
        .id(status.instance.as_str())
        .host(host)
        .tags(details.tags.iter().cloned())
        .check(Check::ttl(TTL))
        .health(checks);
    for (key, value) in &details.meta {
        registration = registration.meta(key, value);
    }
    if let Some(version) = &details.version {
        registration = registration.version(version);
    }
    Ok(registration)
}
