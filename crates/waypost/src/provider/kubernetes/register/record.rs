//! What an instance says of itself where an EndpointSlice has no field for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::objects::{INSTANCE, MANAGED_BY, US};
use crate::model::{Instance, InstanceBuilder, Weight};

pub(super) type Labels = BTreeMap<Box<str>, Box<str>>;

/// An instance as the annotation `waypost/instance` has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::provider::kubernetes) struct Record {
    id: String,
    scheme: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    path_prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    weight: Weight,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            id: String::new(),
            scheme: "http".into(),
            path_prefix: String::new(),
            version: None,
            tags: Vec::new(),
            metadata: BTreeMap::new(),
            weight: Weight::default(),
        }
    }
}

impl Record {
    pub(super) fn of(instance: &Instance) -> Self {
        let metadata = instance.metadata();
        Self {
            id: instance.id().to_string(),
            scheme: instance.scheme().to_owned(),
            path_prefix: instance.path_prefix().to_owned(),
            version: instance.version().map(str::to_owned),
            tags: instance.tags().map(str::to_owned).collect(),
            metadata: metadata
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .collect(),
            weight: instance.weight(),
        }
    }

    /// The one in a slice, if it is a slice of ours.
    pub(in crate::provider::kubernetes) fn in_slice(
        labels: Option<&Labels>,
        annotations: Option<&Labels>,
    ) -> Option<Self> {
        let is_ours = labels?.get(MANAGED_BY).is_some_and(|by| **by == *US);
        is_ours.then_some(())?;
        serde_json::from_str(annotations?.get(INSTANCE)?).ok()
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The instance with all that it said of itself.
    pub(in crate::provider::kubernetes) fn complete(
        &self,
        mut instance: InstanceBuilder,
    ) -> InstanceBuilder {
        if !self.id.is_empty() {
            instance = instance.id(self.id.as_str());
        }
        if let Some(version) = &self.version {
            instance = instance.version(version.as_str());
        }
        let metadata = self.metadata.iter();
        instance
            .scheme(self.scheme.as_str())
            .path_prefix(self.path_prefix.as_str())
            .tags(self.tags.iter().map(String::as_str))
            .metadata(metadata.map(|(key, value)| (key.as_str(), value.as_str())))
            .weight(self.weight)
    }
}
