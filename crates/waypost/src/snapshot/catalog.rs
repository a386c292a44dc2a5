//! The list of all services.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::{ProviderError, ServiceName};

use super::Freshness;

/// The names of all services that a provider knows at one moment.
#[derive(Clone, Debug)]
pub struct Catalog {
    names: Arc<BTreeSet<ServiceName>>,
    freshness: Freshness,
}

impl Catalog {
    pub(crate) fn pending(provider: Arc<str>) -> Self {
        Self {
            names: Arc::default(),
            freshness: Freshness::never(provider),
        }
    }

    pub(crate) fn expiring(mut self, max_stale: Option<Duration>) -> Self {
        self.freshness.max_stale = max_stale;
        self
    }

    /// A list that was confirmed at an earlier time.
    pub(crate) fn remembered(&self, names: BTreeSet<ServiceName>, at: Instant) -> Self {
        let mut known = self.answered(names);
        known.freshness.confirmed_at = Some(at);
        known
    }

    pub(crate) fn answered(&self, names: BTreeSet<ServiceName>) -> Self {
        let changed = !self.freshness.is_known() || *self.names != names;
        Self {
            names: if changed {
                Arc::new(names)
            } else {
                Arc::clone(&self.names)
            },
            freshness: self.freshness.confirmed(changed),
        }
    }

    pub(crate) fn failed(&self, error: ProviderError) -> Self {
        Self {
            freshness: self.freshness.failed(error),
            ..self.clone()
        }
    }

    /// The names, sorted.
    pub fn names(&self) -> &BTreeSet<ServiceName> {
        &self.names
    }

    /// The provider, the age of the list, and whether the provider is failing.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_first_or_a_different_answer_is_a_change() {
        let names = |names: &[&str]| -> BTreeSet<ServiceName> {
            names.iter().map(|name| name.parse().unwrap()).collect()
        };
        let mut catalog = Catalog::pending("test".into());
        for (answer, is_change) in [
            (&[][..], true),
            (&[], false),
            (&["a"], true),
            (&["a"], false),
            (&["a", "b"], true),
            (&[], true),
        ] {
            let before = catalog.freshness().generation();
            catalog = catalog.answered(names(answer));
            assert_eq!(*catalog.names(), names(answer));
            let has_changed = catalog.freshness().generation() != before;
            assert_eq!(has_changed, is_change, "{answer:?}");
        }
    }
}
