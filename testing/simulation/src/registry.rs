//! A registry in memory, with faults on demand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use waypost::provider::{
    HeartbeatResponse, InstanceReport, NamesWatch, Provider, Registration, Registry, ServiceAnswer,
    Watch,
};
use waypost::{Health, Instance, InstanceId, ProviderError, ServiceName};

/// An instance without a heartbeat for this long is critical, as after a TTL check in Consul.
pub(super) const TTL: Duration = Duration::from_secs(15);

/// A fault between a process and the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Faults {
    /// The registry answers no requests.
    pub(super) down: bool,
    /// Watches break.
    pub(super) readers_cut: bool,
    /// Writes fail.
    pub(super) writers_cut: bool,
    /// Writes are applied, but their responses are lost.
    pub(super) answers_lost: bool,
    /// Writes are applied twice.
    pub(super) duplicated: bool,
    /// Each answer of the registry takes three seconds.
    pub(super) slow: bool,
}

/// Clones share their state.
#[derive(Clone, Debug)]
pub(super) struct FaultyRegistry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    /// Each instance has the time of its last heartbeat.
    instances: BTreeMap<InstanceId, (Arc<Instance>, Instant)>,
    known: BTreeSet<ServiceName>,
}

impl FaultyRegistry {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            changed: watch::Sender::new(()),
        }))
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
        self.0.changed.send_replace(());
    }

    /// The registry loses all data, as when it is replaced by an empty one.
    pub(super) fn wipe(&self) {
        let mut state = self.state();
        state.instances.clear();
        state.known.clear();
        drop(state);
        self.0.changed.send_replace(());
    }

    /// Checks each second which instances are critical, and notifies readers of changes.
    pub(super) async fn run_checks(self) {
        let mut earlier = BTreeSet::new();
        loop {
            sleep(Duration::from_secs(1)).await;
            let state = self.state();
            let late = state.instances.iter();
            let late = late.filter(|(_, (_, heartbeat))| heartbeat.elapsed() > TTL);
            let critical: BTreeSet<InstanceId> = late.map(|(id, _)| id.clone()).collect();
            drop(state);
            if critical != earlier {
                self.0.changed.send_replace(());
                earlier = critical;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    fn read(&self, service: &ServiceName) -> Result<ServiceAnswer, ProviderError> {
        let state = self.state();
        if state.faults.down || state.faults.readers_cut {
            return Err(unreachable());
        }
        if !state.known.contains(service) {
            return Ok(ServiceAnswer::Unknown);
        }
        let of_service = state.instances.values();
        let of_service = of_service.filter(|(instance, _)| instance.service() == service);
        let checked = of_service.map(|(instance, heartbeat)| {
            if heartbeat.elapsed() <= TTL {
                return Arc::clone(instance);
            }
            let host = instance.host().clone();
            let critical = Instance::builder(service.clone(), host, instance.port())
                .id(instance.id().as_str())
                .health(Health::Critical);
            Arc::new(critical.build().unwrap())
        });
        Ok(ServiceAnswer::Instances(checked.collect()))
    }

    async fn delay(&self) {
        let is_slow = self.state().faults.slow;
        if is_slow {
            sleep(Duration::from_secs(3)).await;
        }
    }

    /// Applies a change. `change` returns whether readers would notice it.
    async fn write(&self, change: impl Fn(&mut State) -> bool) -> Result<(), ProviderError> {
        self.delay().await;
        let mut state = self.state();
        let faults = state.faults;
        if faults.down || faults.writers_cut {
            return Err(unreachable());
        }
        let mut is_visible = change(&mut state);
        if faults.duplicated {
            is_visible |= change(&mut state);
        }
        drop(state);
        if is_visible {
            self.0.changed.send_replace(());
        }
        if faults.answers_lost {
            return Err(unreachable());
        }
        Ok(())
    }
}

fn unreachable() -> ProviderError {
    ProviderError::unreachable("simulated registry", "connection refused")
}

impl Provider for FaultyRegistry {
    fn describe(&self) -> Arc<str> {
        "simulated registry".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let (registry, service) = (self.clone(), service.clone());
        let changes = self.0.changed.subscribe();
        stream::unfold(Some((changes, None)), move |reader| {
            let (registry, service) = (registry.clone(), service.clone());
            async move {
                let (mut changes, last) = reader?;
                loop {
                    changes.mark_unchanged();
                    registry.delay().await;
                    match registry.read(&service) {
                        Err(error) => return Some((Err(error), None)),
                        Ok(answer) if last.as_ref() != Some(&answer) => {
                            return Some((Ok(answer.clone()), Some((changes, Some(answer)))));
                        }
                        Ok(_) => {}
                    }
                    changes.changed().await.ok()?;
                }
            }
        })
        .boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        stream::pending().boxed()
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

impl Registry for FaultyRegistry {
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        _: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        async {
            let instance = registration.instance();
            self.write(|state| {
                state.known.insert(instance.service().clone());
                let entry = (Arc::clone(instance), Instant::now());
                state.instances.insert(instance.id().clone(), entry);
                true
            })
            .await
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        async {
            self.write(|state| state.instances.remove(id).is_some())
                .await
        }
        .boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        _: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
        async {
            let id = registration.instance().id();
            let is_known = self.state().instances.contains_key(id);
            self.write(|state| {
                let Some((_, heartbeat)) = state.instances.get_mut(id) else {
                    return false;
                };
                let was_critical = heartbeat.elapsed() > TTL;
                *heartbeat = Instant::now();
                was_critical
            })
            .await?;
            Ok(if is_known {
                HeartbeatResponse::Known
            } else {
                HeartbeatResponse::Forgotten
            })
        }
        .boxed()
    }
}
