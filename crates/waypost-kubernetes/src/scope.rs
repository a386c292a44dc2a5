//! Which Services' objects an informer follows, and the selectors that request them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::resources::SERVICE_NAME_LABEL;

/// The Services whose objects are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The Services of these names, in any of the namespaces.
    Services(BTreeSet<Arc<str>>),
    All,
}

/// A query parameter, `labelSelector` or `fieldSelector`, and its value.
pub(crate) type Selector = (&'static str, String);

impl Scope {
    pub(crate) fn empty() -> Self {
        Self::Services(BTreeSet::new())
    }

    pub(crate) fn includes(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Services(names) => names.contains(service),
        }
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, _) => false,
            (Self::Services(these), Self::Services(those)) => these.is_subset(those),
        }
    }

    /// Selects EndpointSlices by the label that names their Service; `None` selects all.
    pub(crate) fn label_selector(&self) -> Option<Selector> {
        let Self::Services(names) = self else {
            return None;
        };
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        let value = match &names[..] {
            [name] => format!("{SERVICE_NAME_LABEL}={name}"),
            names => format!("{SERVICE_NAME_LABEL} in ({})", names.join(",")),
        };
        Some(("labelSelector", value))
    }

    /// Selects one Service by its name; `None` selects all. A field selector cannot name several.
    pub(crate) fn field_selector(&self) -> Option<Selector> {
        match self {
            Self::Services(names) if names.len() == 1 => {
                Some(("fieldSelector", format!("metadata.name={}", names.first()?)))
            }
            _ => None,
        }
    }
}
