//! The result of a pick.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::Guard;
use tokio::time::Instant;
use waypost_core::Instance;

use super::lease::{Lease, Timing};
use super::picker::PreparedPicker;
use crate::endpoint::Endpoint;
use crate::snapshot::Snapshot;

/// An endpoint that was chosen. It is borrowed from the picker, so nothing is copied or counted. Call
/// [`lease`](Self::lease) and hold the [`Lease`] for as long as the request lasts.
pub struct Pick {
    picker: Guard<Arc<PreparedPicker>>,
    index: usize,
    is_trial: bool,
}

impl Pick {
    #[inline]
    pub(super) fn new(picker: Guard<Arc<PreparedPicker>>, index: usize) -> Self {
        Self {
            picker,
            index,
            is_trial: false,
        }
    }

    /// A pick whose outcome decides whether an ejected endpoint is readmitted.
    pub(super) fn trial(picker: Guard<Arc<PreparedPicker>>, index: usize) -> Self {
        Self {
            picker,
            index,
            is_trial: true,
        }
    }

    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.picker.endpoint(self.index)
    }

    /// The snapshot that it was chosen from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        self.picker.snapshot()
    }

    /// Counts the request as in flight until the lease is dropped.
    // Always inlined, for the same reason as `Balancer::choose`.
    #[inline(always)]
    pub fn lease(&self) -> Lease {
        let timing = if self.is_trial {
            Timing::Since(Instant::now())
        } else {
            Timing::start(self.picker.snapshot().group())
        };
        self.picker.lease(self.index, timing, self.is_trial)
    }

    /// Like [`lease`](Self::lease), for a caller that has read the clock.
    #[inline(always)]
    pub fn lease_at(&self, now: Instant) -> Lease {
        let timing = Timing::Since(now);
        self.picker.lease(self.index, timing, self.is_trial)
    }
}

impl Deref for Pick {
    type Target = Instance;

    #[inline]
    fn deref(&self) -> &Instance {
        self.endpoint().instance()
    }
}

impl fmt::Debug for Pick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(self.endpoint()).finish()
    }
}
