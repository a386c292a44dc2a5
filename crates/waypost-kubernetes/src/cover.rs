//! Which Services' objects are followed, and how the API is asked for them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::wire::SERVICE_NAME;

/// Which Services' objects are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    Only(BTreeSet<Arc<str>>),
    All,
}

impl Cover {
    pub(super) fn nothing() -> Self {
        Self::Only(BTreeSet::new())
    }

    pub(super) fn includes(&self, service: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(service),
        }
    }

    pub(super) fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::All) => true,
            (Self::All, _) => false,
            (Self::Only(these), Self::Only(those)) => these.is_subset(those),
        }
    }
}

/// Selects slices by the label that names their Service.
pub(super) fn by_label(cover: &Cover) -> Option<(&'static str, String)> {
    let Cover::Only(names) = cover else {
        return None;
    };
    let names: Vec<_> = names.iter().map(|name| &**name).collect();
    let value = match &names[..] {
        [name] => format!("{SERVICE_NAME}={name}"),
        names => format!("{SERVICE_NAME} in ({})", names.join(",")),
    };
    Some(("labelSelector", value))
}

/// Selects one Service by its name; there is no selector for several.
pub(super) fn by_field(cover: &Cover) -> Option<(&'static str, String)> {
    match cover {
        Cover::Only(names) if names.len() == 1 => {
            Some(("fieldSelector", format!("metadata.name={}", names.first()?)))
        }
        _ => None,
    }
}
