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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::renewal::{EXPIRES_AFTER, RENEWED_AT};

    fn slice(renewed_at: Option<&str>) -> EndpointSlice {
        let annotations = json!({ RENEWED_AT: renewed_at, EXPIRES_AFTER: "10m" });
        let annotations = renewed_at.map(|_| annotations);
        serde_json::from_value(json!({ "metadata": { "annotations": annotations } })).unwrap()
    }

    fn later(now: Now, seconds: u64) -> Now {
        let monotonic = now.monotonic + Duration::from_secs(seconds);
        Now { monotonic, ..now }
    }

    #[test]
    fn only_a_new_renewal_begins_the_time_again() {
        let begin = Now {
            wall: humantime::parse_rfc3339("2030-01-01T00:00:00Z").unwrap(),
            ..Now::read()
        };
        let first = slice(Some("2030-01-01T00:00:00Z"));
        let expiry = Expiry::of(&first, None, begin).unwrap();
        assert_eq!(expiry.due(), Some(begin.monotonic + TIMEOUT));
        let same = Expiry::of(&first, Some(expiry), later(begin, 60)).unwrap();
        assert_eq!(same.due(), expiry.due());
        let renewed = slice(Some("2030-01-01T00:01:00Z"));
        let renewed = Expiry::of(&renewed, Some(expiry), later(begin, 60)).unwrap();
        assert_eq!(renewed.due(), Some(later(begin, 60).monotonic + TIMEOUT));
        let restarted = expiry.restarted(later(begin, 90).monotonic);
        assert_eq!(restarted.due(), Some(later(begin, 90).monotonic + TIMEOUT));
        assert!(Expiry::of(&slice(None), Some(expiry), begin).is_none());
    }

    #[test]
    fn an_expired_slice_stays_so_until_it_is_renewed() {
        let now = Now {
            wall: humantime::parse_rfc3339("2030-01-01T01:00:00Z").unwrap(),
            ..Now::read()
        };
        let old = slice(Some("2030-01-01T00:00:00Z"));
        let seen_first = Expiry::of(&old, None, now).unwrap();
        assert!(seen_first.has_expired());
        assert_eq!(seen_first.due(), None);
        assert!(seen_first.restarted(now.monotonic).has_expired());
        let recent = slice(Some("2030-01-01T00:59:00Z"));
        let expiry = Expiry::of(&recent, None, now).unwrap();
        assert!(!expiry.has_expired());
        assert!(expiry.expired().has_expired());
        // Renewed by a writer whose clock is behind.
        let behind = slice(Some("2030-01-01T00:00:01Z"));
        assert!(
            !Expiry::of(&behind, Some(seen_first), now)
                .unwrap()
                .has_expired()
        );
    }
}
