//! What an instance says of itself where an EndpointSlice has no field for it.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use crate::model::{Instance, InstanceBuilder, Weight};

pub(super) type Labels = BTreeMap<Box<str>, Box<str>>;

/// The label by which a slice says whose it is, and its value for ours.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub(super) const US: &str = "waypost";

/// The annotations of our slices.
pub(super) const INSTANCE: &str = "waypost/instance";
pub(super) const RENEWED_AT: &str = "waypost/renewed-at";
pub(super) const EXPIRES_AFTER: &str = "waypost/expires-after";

/// An instance as the annotation `waypost/instance` has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
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
    pub(super) fn in_slice(labels: Option<&Labels>, annotations: Option<&Labels>) -> Option<Self> {
        is_ours(labels).then_some(())?;
        serde_json::from_str(annotations?.get(INSTANCE)?).ok()
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The instance with all that it said of itself.
    pub(super) fn complete(&self, mut instance: InstanceBuilder) -> InstanceBuilder {
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

/// Whether a slice is one of ours.
pub(super) fn is_ours(labels: Option<&Labels>) -> bool {
    labels.is_some_and(|labels| labels.get(MANAGED_BY).is_some_and(|by| **by == *US))
}

/// Whether the one who registered a slice of ours hasn't renewed it for as long as it said that it
/// would.
pub(super) fn is_left_over(annotations: Option<&Labels>, now: SystemTime) -> bool {
    let value = |key: &str| annotations.and_then(|all| all.get(key));
    let renewed = value(RENEWED_AT).map(|text| humantime::parse_rfc3339(text));
    let expires = value(EXPIRES_AFTER).map(|text| humantime::parse_duration(text));
    let (Some(Ok(renewed)), Some(Ok(expires))) = (renewed, expires) else {
        return false;
    };
    let age = now.duration_since(renewed).unwrap_or(Duration::ZERO);
    age > expires
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_renewed_in_its_time_is_left_over() {
        let annotations = |renewed: &str, expires: &str| -> Labels {
            [(RENEWED_AT, renewed), (EXPIRES_AFTER, expires)]
                .map(|(key, value)| (key.into(), value.into()))
                .into()
        };
        let now = humantime::parse_rfc3339("2030-01-01T00:10:00Z").unwrap();
        for (renewed, expires, is_over) in [
            ("2030-01-01T00:00:00Z", "9m", true),
            ("2030-01-01T00:00:00Z", "11m", false),
            ("2030-01-01T01:00:00Z", "1s", false), // a clock that is ahead
            ("2030-01-01T00:00:00Z", "soon", false),
            ("yesterday", "1s", false),
        ] {
            let said = is_left_over(Some(&annotations(renewed, expires)), now);
            assert_eq!(said, is_over, "{renewed} {expires}");
        }
        assert!(!is_left_over(None, now));
    }
}
