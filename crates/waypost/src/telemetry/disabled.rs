//! Metrics without the feature `metrics`: nothing.

use std::time::Duration;

use waypost_core::{Error, ProviderErrorKind, ServiceName};

use super::ServiceState;
use crate::outlier::outcome::Outcome;

/// The metrics of one service. It has no size, and its methods compile to nothing.
#[derive(Clone, Debug)]
pub(crate) struct ServiceMetrics;

impl ServiceMetrics {
    #[inline(always)]
    pub(crate) fn of(_: &ServiceName) -> Self {
        Self
    }

    #[inline(always)]
    pub(crate) fn picked(&self) {}

    #[inline(always)]
    pub(crate) fn pick_failed(&self, _: &Error) {}

    #[inline(always)]
    pub(crate) fn request_started(&self) {}

    #[inline(always)]
    pub(crate) fn request_ended(&self, _abandoned: bool) {}

    #[inline(always)]
    pub(crate) fn outcome(&self, _: Outcome, _: impl FnOnce() -> Option<Duration>) {}

    #[cfg(any(feature = "reqwest", feature = "tower"))]
    #[inline(always)]
    pub(crate) fn retried(&self) {}

    #[cfg(any(feature = "reqwest", feature = "tower"))]
    #[inline(always)]
    pub(crate) fn hedged(&self) {}

    #[inline(always)]
    pub(crate) fn ejected(&self, _cause: &'static str) {}

    #[inline(always)]
    pub(crate) fn ejected_now(&self, _: usize) {}

    #[inline(always)]
    pub(crate) fn watched(&self, _: impl FnOnce() -> ServiceState) {}

    #[inline(always)]
    pub(crate) fn watch_failed(&self, _: ProviderErrorKind) {}

    #[inline(always)]
    pub(crate) fn registration_attempt(&self, _succeeded: bool) {}

    #[inline(always)]
    pub(crate) fn registered(&self, _: bool) {}
}
