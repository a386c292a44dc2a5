//! What is said of what is known, to whom.

use std::sync::Arc;

use waypost_core::Instance;

use super::keeper::Keeper;
use super::{Names, Shared, lock};
use crate::join;
use crate::members::Members;
use crate::mirror::Mirror;
use crate::said::publish;
use crate::sight::{Basis, Sight};
use crate::wire::{Service, Slice};

impl Keeper {
    pub(super) fn publish(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        let silent = self.silent.as_ref().map(|fault| &fault.error);
        let mut lacks = None;
        let services = lock(&self.asked.services);
        for (name, (service, members)) in &mut self.members {
            let Some((_, sender)) = services.get(name) else {
                continue;
            };
            if !dirty.all && !dirty.names.contains(service) {
                continue;
            }
            let sight = Sight {
                slices: self.slices.reading(self.slices.knows(service)),
                service: self.services.reading(self.services.knows(service)),
            };
            lacks = lacks.or(sight.degraded());
            let object = self.services.get(service);
            members.describe(object, sight.degraded());
            let value = answer(sight.basis(), members, object);
            publish(sender, value, silent.or(sight.fault()), dirty.attempt);
        }
        drop(services);
        if let Some(sender) = &*lock(&self.asked.names) {
            let sight = Sight {
                slices: self.slices.reading(self.slices.knows_all()),
                service: self.services.reading(self.services.knows_all()),
            };
            let value = names(&self.slices, &self.services);
            publish(sender, value, silent.or(sight.fault()), dirty.attempt);
        }
        if lacks.is_some() && std::mem::replace(&mut self.told, lacks) != lacks {
            let namespace = &*self.namespace;
            tracing::warn!(
                namespace,
                reason = lacks,
                "kubernetes discovery is degraded"
            );
        }
    }
}

/// What is to be answered for a service; `None` as long as nothing can be.
fn answer(basis: Basis, members: &Members, service: Option<&Arc<Service>>) -> Option<Shared> {
    let one = |instance: Option<Arc<Instance>>| Some(Some(Arc::new(Vec::from_iter(instance))));
    if basis == Basis::Nothing {
        return None;
    }
    if let Some(service) = service {
        if let Some(target) = service.external_name() {
            return one(join::external(members.context(), service, target));
        }
        if basis == Basis::Service {
            return one(join::by_cluster_dns(members.context(), service));
        }
    }
    // A Service without endpoints is there; without Services, who has no slices isn't.
    let is_there = service.is_some() || members.has_slices();
    Some(is_there.then(|| Arc::new(members.all())))
}

/// The names of all Services, by the slices if there is no other way.
fn names(slices: &Mirror<Slice>, services: &Mirror<Service>) -> Option<Names> {
    if services.knows_all() {
        return Some(
            services
                .all()
                .map(|s| Arc::clone(&s.metadata.name))
                .collect(),
        );
    }
    let by_slices = services.is_refused() && slices.knows_all();
    by_slices.then(|| {
        let named = slices.all().filter_map(|slice| slice.service());
        named.map(Arc::from).collect()
    })
}
