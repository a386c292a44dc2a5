//! The same objects as they are found, as far as it matters whose they are.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use waypost_core::InstanceId;

use super::objects::{ID, MANAGED_BY, US};
use crate::renewal::Renewal;
use crate::wire::{Labels, Metadata};

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
    pub(super) fn is_left_over(&self, now: SystemTime, grace: Duration) -> bool {
        Renewal::of(&self.metadata).is_some_and(|renewal| renewal.has_expired(now, grace))
    }
}
