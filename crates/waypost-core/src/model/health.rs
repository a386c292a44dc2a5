//! The health of an instance as its registry reports it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The health of an instance, ordered from best to worst.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All checks pass.
    Passing,
    /// The instance has no checks, like an address from a file or an environment variable. It takes
    /// traffic.
    #[default]
    Unchecked,
    /// A check warns. The instance still takes traffic, as with Consul's `warning`.
    Warning,
    /// The instance is shutting down but still serves. It takes traffic only when no instance in a
    /// better state is left.
    Draining,
    /// A check fails, or the instance is in maintenance mode. It takes no traffic.
    Critical,
}

impl Health {
    /// Whether new requests may go to an instance in this state.
    pub const fn takes_traffic(self) -> bool {
        matches!(self, Self::Passing | Self::Unchecked | Self::Warning)
    }

    /// The lower-case name: `passing`, `unchecked`, `warning`, `draining` or `critical`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Unchecked => "unchecked",
            Self::Warning => "warning",
            Self::Draining => "draining",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
