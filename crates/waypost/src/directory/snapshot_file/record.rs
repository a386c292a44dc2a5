//! An instance in the snapshot file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use waypost_core::{Health, Host, Instance, Invalid, ServiceName, Weight};

/// An instance in the file. Reading one applies the same validation as any other way to create an
/// instance.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    id: String,
    scheme: String,
    host: Host,
    port: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    weight: Weight,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    health: Health,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    ports: BTreeMap<String, u16>,
}

impl Record {
    pub(super) fn of(instance: &Instance) -> Self {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            id: instance.id().to_string(),
            scheme: instance.scheme().to_owned(),
            host: instance.host().clone(),
            port: instance.port(),
            path: instance.path_prefix().to_owned(),
            version: instance.version().map(str::to_owned),
            tags: instance.tags().map(str::to_owned).collect(),
            metadata: instance.metadata().map(owned).collect(),
            weight: instance.weight(),
            zone: instance.zone().map(str::to_owned),
            health: instance.health(),
            ports: (instance.ports())
                .map(|(name, port)| (name.to_owned(), port))
                .collect(),
        }
    }

    pub(super) fn instance(self, service: &ServiceName) -> Result<Instance, Invalid> {
        let mut builder = Instance::builder(service.clone(), self.host, self.port)
            .id(self.id)
            .scheme(self.scheme)
            .path_prefix(self.path)
            .tags(self.tags)
            .metadata(self.metadata)
            .weight(self.weight)
            .health(self.health);
        if let Some(version) = self.version {
            builder = builder.version(version);
        }
        if let Some(zone) = self.zone {
            builder = builder.zone(zone);
        }
        for (name, port) in self.ports {
            builder = builder.named_port(name, port);
        }
        builder.build()
    }
}
