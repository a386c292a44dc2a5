use std::fmt;

use serde::{Deserialize, Serialize};

/// What is known of an instance's health.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// All its checks pass.
    Passing,
    /// Nobody checks it, as with an address from a file or an environment variable. It is used.
    #[default]
    Unchecked,
    /// A check warns; it still takes traffic, as with Consul's `warning`.
    Warning,
    /// It is on its way out but still serves. It is used only when nothing better is left.
    Draining,
    /// A check fails, or it is in maintenance. It is never used.
    Critical,
}

impl Health {
    /// Whether new work may go to an instance in this state.
    pub const fn takes_traffic(self) -> bool {
        matches!(self, Self::Passing | Self::Unchecked | Self::Warning)
    }

    /// The word for it: `passing`, `unchecked`, `warning`, `draining` or `critical`.
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
