//! A service to which requests can be forwarded. It is shared by all workers.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Handle;
use waypost::balance::Explanation;
use waypost::{Balancer, Error, Instance, InstanceId, Pick, ServiceDiscoveryClient, ServiceName};

use crate::recently_refused::RecentlyRefused;

/// One service of the registry.
pub(crate) struct Service {
    name: ServiceName,
    /// A small unique number, used as an index into traffic figures.
    index: usize,
    client: ServiceDiscoveryClient,
    /// The runtime on which watches run. They outlive the worker that needed them first.
    runtime: Handle,
    /// Created by the first request, so that unused services are not watched.
    balancer: OnceLock<Balancer>,
    is_listed: AtomicBool,
    refused: RecentlyRefused,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.name).finish()
    }
}

impl Service {
    pub(crate) fn new(
        name: ServiceName,
        index: usize,
        client: ServiceDiscoveryClient,
        runtime: Handle,
    ) -> Self {
        Self {
            name,
            index,
            client,
            runtime,
            balancer: OnceLock::new(),
            is_listed: AtomicBool::new(true),
            refused: RecentlyRefused::default(),
        }
    }

    pub(crate) fn name(&self) -> &ServiceName {
        &self.name
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether the registry lists the service now.
    pub(crate) fn is_listed(&self) -> bool {
        self.is_listed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_listed(&self, is_listed: bool) {
        self.is_listed.store(is_listed, Ordering::Relaxed);
    }

    /// The instances that have recently refused a connection.
    pub(crate) fn recently_refused(&self) -> Vec<InstanceId> {
        self.refused.ids()
    }

    /// The balancer, if the service has been used.
    pub(crate) fn used_balancer(&self) -> Option<&Balancer> {
        self.balancer.get()
    }

    /// The balancer's state of each instance, if the service has been used.
    pub(crate) fn explain(&self) -> Option<Explanation> {
        self.balancer.get().map(Balancer::explain)
    }

    /// The balancer, once it knows the service's instances.
    ///
    /// # Errors
    /// If the instances are unknown and the registry does not answer.
    pub(crate) async fn ready_balancer(&self) -> Result<&Balancer, Error> {
        let balancer = match self.balancer.get() {
            Some(balancer) => balancer,
            None => self.create_balancer()?,
        };
        if !balancer.snapshot().freshness().is_known() {
            Box::pin(balancer.ready()).await?;
        }
        Ok(balancer)
    }

    fn create_balancer(&self) -> Result<&Balancer, Error> {
        let _context = self.runtime.enter();
        let balancer = self.client.balancer(&self.name)?;
        Ok(self.balancer.get_or_init(|| balancer))
    }

    /// Picks an instance that `accepts`, as [`pick`](Self::pick) does among all. `None` if there is none.
    pub(crate) fn pick_where(
        &self,
        balancer: &Balancer,
        tried: &[InstanceId],
        accepts: impl Fn(&Instance) -> bool,
    ) -> Result<Option<Pick>, Error> {
        let refused = self.refused.ids();
        let is_untried = |instance: &Instance| !tried.contains(instance.id());
        let is_fresh = |instance: &Instance| !refused.contains(instance.id());
        let pick = balancer.pick_where(|instance| {
            accepts(instance) && is_untried(instance) && is_fresh(instance)
        })?;
        if pick.is_some() {
            return Ok(pick);
        }
        let pick = balancer.pick_where(|instance| accepts(instance) && is_untried(instance))?;
        match pick {
            Some(pick) => Ok(Some(pick)),
            None => balancer.pick_where(accepts),
        }
    }

    /// Picks an instance: preferably one that is neither in `tried` nor recently refused a connection,
    /// otherwise one that is not in `tried`, otherwise any.
    pub(crate) fn pick(&self, balancer: &Balancer, tried: &[InstanceId]) -> Result<Pick, Error> {
        let refused = self.refused.ids();
        if refused.is_empty() {
            return balancer.pick_except(tried);
        }
        let excluded = [tried, &refused].concat();
        let pick = balancer.pick_except(&excluded)?;
        if excluded.contains(pick.id()) {
            balancer.pick_except(tried)
        } else {
            Ok(pick)
        }
    }

    /// Records that an instance could not be connected to.
    pub(crate) fn connection_refused(&self, instance: &InstanceId) {
        self.refused.add(instance);
    }

    /// Records that an instance responded.
    pub(crate) fn connection_accepted(&self, instance: &InstanceId) {
        self.refused.remove(instance);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use waypost::Host;
    use waypost::provider::MemoryProvider;

    use super::*;

    #[tokio::test]
    async fn instances_that_were_tried_or_refuse_connections_are_the_last_choice() {
        let name: ServiceName = "shop".parse().unwrap();
        let memory = MemoryProvider::new();
        for id in ["a", "b", "c"] {
            let instance = Instance::builder(name.clone(), Host::Ip([192, 0, 2, 1].into()), 80);
            memory.insert(instance.id(id).build().unwrap());
        }
        let client = ServiceDiscoveryClient::new(std::sync::Arc::new(memory));
        let service = Service::new(name, 0, client, Handle::current());
        let balancer = service.ready_balancer().await.unwrap();
        let [a, b] = ["a", "b"].map(InstanceId::new);
        // `c` is accepted by `pick` only.
        let is_accepted = |instance: &Instance| instance.id().as_str() != "c";
        let picked = |tried: &[InstanceId]| -> [BTreeSet<String>; 2] {
            let id = |pick: Pick| pick.id().as_str().to_owned();
            let any = (0..50).map(|_| id(service.pick(balancer, tried).unwrap()));
            let accepted = (0..50).map(|_| {
                let pick = service.pick_where(balancer, tried, is_accepted);
                id(pick.unwrap().unwrap())
            });
            [any.collect(), accepted.collect()]
        };
        let sets = |any: &str, accepted: &str| -> [BTreeSet<String>; 2] {
            [any, accepted].map(|ids| ids.chars().map(String::from).collect())
        };
        assert_eq!(picked(&[]), sets("abc", "ab"));
        assert_eq!(picked(std::slice::from_ref(&a)), sets("bc", "b"));
        service.connection_refused(&b);
        assert_eq!(service.recently_refused(), std::slice::from_ref(&b));
        assert_eq!(picked(&[]), sets("ac", "a"));
        assert_eq!(picked(std::slice::from_ref(&a)), sets("c", "b"));
        assert_eq!(
            picked(&[a, b.clone()])[1],
            sets("", "ab")[1],
            "any rather than none"
        );
        service.connection_accepted(&b);
        assert_eq!(picked(&[]), sets("abc", "ab"));
        assert!(
            service
                .pick_where(balancer, &[], |_| false)
                .unwrap()
                .is_none()
        );
    }
}
