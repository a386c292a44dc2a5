//! When a slice that must be renewed counts as expired.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Now;
use crate::renewal::{Renewal, TIMEOUT};
use crate::resources::EndpointSlice;

/// The expiry of a slice, by this process's own clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    renewal: Renewal,
    expires_at: Instant,
    has_expired: bool,
}

impl Expiry {
    /// The expiry of a slice; `None` if it need not be renewed. A renewal restarts it. If the slice is
    /// seen for the first time (there is no `earlier` expiry), its timestamps decide whether it has
    /// already expired.
    pub(super) fn of(slice: &EndpointSlice, earlier: Option<Self>, now: Now) -> Option<Self> {
        let renewal = Renewal::of(&slice.metadata)?;
        if let Some(earlier) = earlier
            && earlier.renewal == renewal
        {
            return Some(earlier);
        }
        Some(Self {
            renewal,
            expires_at: now.monotonic + TIMEOUT,
            has_expired: earlier.is_none() && renewal.has_expired(now.wall, Duration::ZERO),
        })
    }

    pub(super) fn has_expired(self) -> bool {
        self.has_expired
    }

    /// When it expires, if it has not yet.
    pub(super) fn due(self) -> Option<Instant> {
        (!self.has_expired).then_some(self.expires_at)
    }

    pub(super) fn expired(self) -> Self {
        Self {
            has_expired: true,
            ..self
        }
    }

    /// Restarts the time limit, as if the slice had been renewed now. A slice that has expired stays expired.
    pub(super) fn restarted(self, now: Instant) -> Self {
        Self {
            expires_at: now + TIMEOUT,
            ..self
        }
    }
}
