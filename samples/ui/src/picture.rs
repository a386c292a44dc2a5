//! The live services as the page shows them.

use std::sync::Arc;

use serde::Serialize;
use waypost::{Catalog, Health, Instance, Snapshot};

/// All that is known at one moment.
#[derive(Clone)]
pub(crate) struct Picture {
    pub(crate) catalog: Arc<Catalog>,
    /// In order of names.
    pub(crate) services: Vec<Arc<Snapshot>>,
}

/// The picture as the page gets it.
#[derive(PartialEq, Serialize)]
pub(crate) struct View {
    registry: RegistryView,
    services: Vec<ServiceView>,
}

#[derive(PartialEq, Serialize)]
struct RegistryView {
    provider: String,
    reachable: bool,
    /// Why it isn't reachable, if it isn't.
    reason: Option<String>,
    /// How old the picture is, in milliseconds; none if there never was one.
    age_ms: Option<u64>,
}

#[derive(PartialEq, Serialize)]
struct ServiceView {
    name: String,
    instances: Vec<InstanceView>,
    /// Why its instances aren't known, if they aren't.
    problem: Option<String>,
}

#[derive(PartialEq, Serialize)]
struct InstanceView {
    id: String,
    address: String,
    health: Health,
    /// Whether it gets new work now.
    usable: bool,
    version: Option<String>,
    zone: Option<String>,
    tags: Vec<String>,
}

impl Picture {
    /// What to show of it now; only the age changes from one moment to the next.
    pub(crate) fn view(&self) -> View {
        let freshness = self.catalog.freshness();
        View {
            registry: RegistryView {
                provider: freshness.provider().to_owned(),
                reachable: freshness.failure().is_none() && freshness.is_known(),
                reason: freshness
                    .failure()
                    .map(|failure| failure.error().to_string()),
                age_ms: freshness
                    .age()
                    .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            },
            services: self
                .services
                .iter()
                .map(|snapshot| service(snapshot))
                .collect(),
        }
    }
}

impl View {
    /// Whether it tells anything beyond its age that the other doesn't.
    pub(crate) fn same_but_for_age(&self, other: &Self) -> bool {
        let ages_aside = (
            &self.registry.provider,
            self.registry.reachable,
            &self.registry.reason,
        ) == (
            &other.registry.provider,
            other.registry.reachable,
            &other.registry.reason,
        );
        ages_aside && self.services == other.services
    }
}

fn service(snapshot: &Snapshot) -> ServiceView {
    let ready = snapshot.ready();
    let instances = snapshot.endpoints().iter().map(|endpoint| {
        let usable = ready.iter().any(|ready| Arc::ptr_eq(ready, endpoint));
        instance(endpoint.instance(), usable)
    });
    // Of a known service the page can see for itself how many instances it has.
    let problem = if snapshot.is_known() {
        None
    } else {
        snapshot.usable().err().map(|error| error.to_string())
    };
    ServiceView {
        name: snapshot.service().to_string(),
        instances: instances.collect(),
        problem,
    }
}

fn instance(instance: &Instance, usable: bool) -> InstanceView {
    InstanceView {
        id: instance.id().to_string(),
        address: instance.authority(),
        health: instance.health(),
        usable,
        version: instance.version().map(str::to_owned),
        zone: instance.zone().map(str::to_owned),
        tags: instance.tags().map(str::to_owned).collect(),
    }
}
