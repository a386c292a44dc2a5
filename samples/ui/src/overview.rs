//! All services of the registry at one moment, and the JSON that the page gets.

use std::sync::Arc;

use serde::Serialize;
use waypost::snapshot::{Catalog, Snapshot};
use waypost::{Health, Instance};

/// All services at one moment.
#[derive(Clone)]
pub(crate) struct Overview {
    pub(crate) catalog: Arc<Catalog>,
    /// Sorted by name.
    pub(crate) services: Vec<Arc<Snapshot>>,
}

/// An overview as JSON.
#[derive(Serialize)]
pub(crate) struct View {
    registry: RegistryView,
    services: Vec<ServiceView>,
}

#[derive(Serialize)]
struct RegistryView {
    #[serde(flatten)]
    state: RegistryState,
    /// The time since the registry last confirmed the data, in milliseconds; `None` if it never
    /// has.
    age_ms: Option<u64>,
}

#[derive(PartialEq, Serialize)]
struct RegistryState {
    provider: String,
    reachable: bool,
    /// Why it is unreachable, if it is.
    reason: Option<String>,
}

#[derive(PartialEq, Serialize)]
struct ServiceView {
    name: String,
    instances: Vec<InstanceView>,
    /// Why the instances are not known, if they are not.
    problem: Option<String>,
}

#[derive(PartialEq, Serialize)]
struct InstanceView {
    id: String,
    address: String,
    health: Health,
    /// Whether it is ready to receive requests.
    usable: bool,
    version: Option<String>,
    zone: Option<String>,
    tags: Vec<String>,
}

impl View {
    pub(crate) fn new(overview: &Overview) -> Self {
        Self {
            registry: registry(&overview.catalog),
            services: overview.services.iter().map(|it| service(it)).collect(),
        }
    }

    /// Whether both are equal apart from their age.
    pub(crate) fn is_same_state(&self, other: &Self) -> bool {
        self.registry.state == other.registry.state && self.services == other.services
    }
}

fn registry(catalog: &Catalog) -> RegistryView {
    let freshness = catalog.freshness();
    let failure = freshness.failure();
    RegistryView {
        state: RegistryState {
            provider: freshness.provider().to_owned(),
            reachable: failure.is_none() && freshness.is_known(),
            reason: failure.map(|failure| failure.error().to_string()),
        },
        age_ms: freshness
            .age()
            .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
    }
}

fn service(snapshot: &Snapshot) -> ServiceView {
    let ready = snapshot.ready();
    let instances = snapshot.endpoints().iter().map(|endpoint| {
        let usable = ready.iter().any(|ready| Arc::ptr_eq(ready, endpoint));
        instance(endpoint.instance(), usable)
    });
    // For a known service the page shows the number of ready instances instead.
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
