//! The same objects as they are found, as far as it matters whose they are.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

use super::{
    super::wire::{Labels, Metadata},
    objects::{EXPIRES_AFTER, ID, MANAGED_BY, RENEWED_AT, US},
};
use crate::model::InstanceId;

/// A Service or an EndpointSlice.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) spec: FoundSpec,
    #[serde(default)]
    pub(super) address_type: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FoundSpec {
    pub(super) selector: Option<Labels>,
}

impl Found {
    /// Whether it is our slice of this instance.
    pub(super) fn is_of(&self, id: &InstanceId) -> bool {
        self.metadata.label(MANAGED_BY) == Some(US)
            && self.metadata.annotation(ID) == Some(id.as_str())
    }

    /// Whether the one who registered this hasn't renewed it for as long as it said that it would.
    pub(super) fn is_left_over(&self, now: SystemTime) -> bool {
        let annotation = |key| self.metadata.annotation(key);
        let renewed = annotation(RENEWED_AT).map(humantime::parse_rfc3339);
        let expires = annotation(EXPIRES_AFTER).map(humantime::parse_duration);
        let (Some(Ok(renewed)), Some(Ok(expires))) = (renewed, expires) else {
            return false;
        };
        let age = now.duration_since(renewed).unwrap_or(Duration::ZERO);
        age > expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_renewed_in_its_time_is_left_over() {
        let found = |annotations: serde_json::Value| -> Found {
            let slice = serde_json::json!({ "metadata": { "annotations": annotations } });
            serde_json::from_value(slice).unwrap()
        };
        let now = humantime::parse_rfc3339("2030-01-01T00:10:00Z").unwrap();
        for (renewed, expires, is_over) in [
            ("2030-01-01T00:00:00Z", "9m", true),
            ("2030-01-01T00:00:00Z", "11m", false),
            ("2030-01-01T01:00:00Z", "1s", false), // a clock that is ahead
            ("2030-01-01T00:00:00Z", "soon", false),
            ("yesterday", "1s", false),
        ] {
            let slice = found(serde_json::json!({ RENEWED_AT: renewed, EXPIRES_AFTER: expires }));
            assert_eq!(slice.is_left_over(now), is_over, "{renewed} {expires}");
        }
        assert!(!found(serde_json::Value::Null).is_left_over(now));
    }
}
