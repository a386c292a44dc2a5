//! Which namespaces a request is about.

use std::fmt;
use std::sync::Arc;

/// One namespace, or all of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Namespaces {
    One(Arc<str>),
    All,
}

impl Namespaces {
    /// The name of the one namespace; `None` for all.
    pub(crate) fn one(&self) -> Option<&Arc<str>> {
        match self {
            Self::One(name) => Some(name),
            Self::All => None,
        }
    }
}

/// As in "services in …".
impl fmt::Display for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => write!(f, "namespace {name}"),
            Self::All => f.write_str("all namespaces"),
        }
    }
}
