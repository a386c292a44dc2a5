//! The library's metrics, through the `metrics` facade. Without the feature `metrics`, the methods are the
//! same and do nothing.

#[cfg(not(feature = "metrics"))]
mod disabled;
#[cfg(feature = "metrics")]
mod recorded;

#[cfg(not(feature = "metrics"))]
pub(crate) use self::disabled::ServiceMetrics;
#[cfg(feature = "metrics")]
pub(crate) use self::recorded::ServiceMetrics;

/// The state of a service in the directory, for gauges.
#[cfg_attr(
    not(feature = "metrics"),
    expect(dead_code, reason = "nothing records it")
)]
pub(crate) struct ServiceState {
    /// How many instances take new work.
    pub(crate) ready: usize,
    /// How many instances there are.
    pub(crate) all: usize,
    /// Whether the provider fails.
    pub(crate) stale: bool,
    /// When the provider last confirmed the instances.
    pub(crate) confirmed_at: Option<tokio::time::Instant>,
}
