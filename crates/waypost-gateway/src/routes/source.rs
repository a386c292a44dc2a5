//! Where a route is defined.

use std::fmt;
use std::sync::Arc;

/// Where a route is defined, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteSource {
    /// The registry's list of services.
    Discovery,
    /// The tags or metadata of the service's instances.
    Tags,
    /// The name of the routes file, and the line.
    File(Arc<str>, u64),
    /// An object, such as `HTTPRoute shop/orders`.
    Object(Arc<str>),
}

impl fmt::Display for RouteSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Discovery => f.write_str("discovery"),
            Self::Tags => f.write_str("tags"),
            Self::File(name, line) => write!(f, "{name}:{line}"),
            Self::Object(object) => f.write_str(object),
        }
    }
}
