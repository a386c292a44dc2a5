use std::collections::{BTreeMap, BTreeSet};

use waypost_core::ServiceName;
use waypost_core::provider::ServiceAnswer;

use super::read::Content;
use super::wire;
use super::wire::Reading;

/// What `/v1/health/service/:name` says.
#[derive(Clone)]
pub(super) struct Instances {
    pub(super) reading: Reading,
    pub(super) answer: ServiceAnswer,
}

impl Content for Instances {
    type Wire = Vec<wire::Entry>;

    fn of(&self, entries: Self::Wire) -> Self {
        let instances = wire::instances(&self.reading, entries);
        Self {
            reading: self.reading.clone(),
            answer: match instances.is_empty() {
                // Consul doesn't tell a service without instances from one that it has never
                // heard of; the directory remembers.
                true => ServiceAnswer::Unknown,
                false => ServiceAnswer::Instances(instances),
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.answer == ServiceAnswer::Unknown
    }
}

/// What `/v1/catalog/services` says.
#[derive(Clone, Default)]
pub(super) struct Names(pub(super) BTreeSet<ServiceName>);

impl Content for Names {
    type Wire = BTreeMap<String, Vec<String>>;

    fn of(&self, services: Self::Wire) -> Self {
        let names = services.keys();
        Self(
            names
                .filter_map(|name| ServiceName::new(name).ok())
                .collect(),
        )
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
