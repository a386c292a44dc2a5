//! A provider that holds its instances in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;

use super::traits::{
    HeartbeatResponse, InstanceReport, NamesWatch, Provider, Registry, ServiceAnswer, Watch,
};
use crate::error::ProviderError;
use crate::model::{Instance, InstanceId, ServiceName};
use crate::registration::Registration;

/// Holds instances in memory, for tests and for services that run in one process.
///
/// Clones share their content.
///
/// ```
/// use futures_util::StreamExt;
/// use waypost_core::provider::{MemoryProvider, Provider, ServiceAnswer};
/// use waypost_core::{Instance, ServiceName};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let memory = MemoryProvider::new();
/// let auth = ServiceName::new("auth")?;
/// memory.insert(Instance::builder(auth.clone(), "10.0.0.7".parse()?, 8080).build()?);
///
/// let Some(Ok(ServiceAnswer::Instances(found))) = memory.watch(&auth).next().await else {
///     panic!("no answer");
/// };
/// assert_eq!(found[0].url_for("/users"), "http://10.0.0.7:8080/users");
/// # Ok::<(), waypost_core::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct MemoryProvider {
    services: watch::Sender<Services>,
}

/// The instances by service and id. A service stays known when its last instance is removed.
type Services = BTreeMap<ServiceName, BTreeMap<InstanceId, Arc<Instance>>>;

impl MemoryProvider {
    /// An empty provider.
    pub fn new() -> Self {
        Self {
            services: watch::Sender::new(Services::new()),
        }
    }

    /// Adds an instance, or replaces the one with the same id.
    pub fn insert(&self, instance: Instance) {
        self.services.send_modify(|services| {
            let instances = services.entry(instance.service().clone()).or_default();
            instances.insert(instance.id().clone(), Arc::new(instance));
        });
    }

    /// Replaces all instances of a service at once.
    pub fn replace(&self, service: &ServiceName, instances: impl IntoIterator<Item = Instance>) {
        let instances = instances
            .into_iter()
            .map(|instance| (instance.id().clone(), Arc::new(instance)))
            .collect();
        self.services.send_modify(|services| {
            services.insert(service.clone(), instances);
        });
    }

    /// Removes an instance; its service stays known. Returns whether the instance was there.
    pub fn remove(&self, id: &InstanceId) -> bool {
        self.services.send_if_modified(|services| {
            let mut services = services.values_mut();
            services.any(|instances| instances.remove(id).is_some())
        })
    }

    /// Removes a service, which is unknown from then on. Returns whether it was known.
    pub fn remove_service(&self, service: &ServiceName) -> bool {
        self.services
            .send_if_modified(|services| services.remove(service).is_some())
    }

    /// A stream of `view` of the content: the current one, then each that differs from the last.
    fn changes<T, F>(&self, view: F) -> stream::BoxStream<'static, Result<T, ProviderError>>
    where
        T: PartialEq + Clone + Send + 'static,
        F: Fn(&Services) -> T + Send + 'static,
    {
        let mut receiver = self.services.subscribe();
        receiver.mark_changed();
        stream::unfold(
            (receiver, view, None),
            |(mut receiver, view, last)| async move {
                loop {
                    // An error means that the provider and all its clones were dropped.
                    receiver.changed().await.ok()?;
                    let now = view(&receiver.borrow_and_update());
                    if last.as_ref() != Some(&now) {
                        return Some((Ok(now.clone()), (receiver, view, Some(now))));
                    }
                }
            },
        )
        .boxed()
    }
}

impl Default for MemoryProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl Provider for MemoryProvider {
    fn describe(&self) -> Arc<str> {
        "memory".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let service = service.clone();
        self.changes(move |services| match services.get(&service) {
            Some(instances) => ServiceAnswer::Instances(instances.values().cloned().collect()),
            None => ServiceAnswer::Unknown,
        })
    }

    fn watch_names(&self) -> NamesWatch {
        self.changes(|services| services.keys().cloned().collect::<BTreeSet<_>>())
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Ok(self)
    }
}

impl Registry for MemoryProvider {
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        _: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.insert(Instance::clone(registration.instance()));
        ready(Ok(())).boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.remove(id);
        ready(Ok(())).boxed()
    }

    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        _: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
        let instance = registration.instance();
        let services = self.services.borrow();
        let instances = services.get(instance.service());
        let response = match instances.and_then(|instances| instances.get(instance.id())) {
            Some(stored) if stored == instance => HeartbeatResponse::Known,
            Some(_) => HeartbeatResponse::Changed("the instance differs".into()),
            None => HeartbeatResponse::Forgotten,
        };
        ready(Ok(response)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Health;
    use crate::registration::ServiceRegistration;

    #[tokio::test]
    async fn a_heartbeat_says_whether_the_instance_is_as_it_was_registered() {
        let memory = MemoryProvider::new();
        let registration = |port| {
            let new = ServiceRegistration::new("a", port).unwrap().id("a-1");
            let new = new.host("10.0.0.1".parse().unwrap());
            new.resolve(None).unwrap()
        };
        let (registered, other) = (registration(80), registration(81));
        let report = InstanceReport::new(Health::Passing, "");
        let response = async |registration| {
            let response = memory.heartbeat(registration, report.clone());
            response.await.unwrap()
        };
        assert!(matches!(
            response(&registered).await,
            HeartbeatResponse::Forgotten
        ));
        memory.register(&registered, &report).await.unwrap();
        assert!(matches!(
            response(&registered).await,
            HeartbeatResponse::Known
        ));
        assert!(matches!(
            response(&other).await,
            HeartbeatResponse::Changed(_)
        ));
        let id = registered.instance().id();
        memory.deregister(id).await.unwrap();
        assert!(matches!(
            response(&registered).await,
            HeartbeatResponse::Forgotten
        ));
    }
}
