//! The renewal timestamps of instances that run outside the cluster.
//!
//! Kubernetes checks the health of pods only. An instance outside the cluster renews its EndpointSlice
//! every minute, with the time and how long the renewal is valid. Readers do not compare that time
//! with their own clock, which may differ by minutes. They count from when they saw the latest
//! renewal, as the node controller does with node leases, and only while they are connected to the
//! API server, because nothing can be renewed without it.

use std::time::{Duration, SystemTime};

use crate::resources::ObjectMeta;

/// The annotation with the time of the latest renewal (RFC 3339).
pub(crate) const RENEWED_AT: &str = "waypost.dev/renewed-at";
/// The annotation with the time for which a renewal is valid, such as `10m`.
pub(crate) const EXPIRES_AFTER: &str = "waypost.dev/expires-after";

/// How often a slice is renewed if nothing else changes. Each renewal is an event for all watchers.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// How long a reader waits for the next renewal: three have been missed by then.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3 * 60);

/// The latest renewal of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewal {
    renewed_at: SystemTime,
    expires_after: Duration,
}

impl Renewal {
    /// `None` if the slice need not be renewed.
    pub(crate) fn of(metadata: &ObjectMeta) -> Option<Self> {
        let renewed_at = metadata.annotation(RENEWED_AT)?;
        let expires_after = metadata.annotation(EXPIRES_AFTER)?;
        Some(Self {
            renewed_at: humantime::parse_rfc3339(renewed_at).ok()?,
            expires_after: humantime::parse_duration(expires_after).ok()?,
        })
    }

    /// Whether it expired more than `grace` ago, by the clocks of reader and writer.
    pub(crate) fn has_expired(&self, now: SystemTime, grace: Duration) -> bool {
        let age = now
            .duration_since(self.renewed_at)
            .unwrap_or(Duration::ZERO);
        age > self.expires_after.saturating_add(grace)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_renewal_expires_after_its_period_and_the_grace_period() {
        let renewal = |annotations: Value| {
            let metadata = json!({ "annotations": annotations });
            Renewal::of(&serde_json::from_value(metadata).unwrap())
        };
        let now = humantime::parse_rfc3339("2030-01-01T00:10:00Z").unwrap();
        for (renewed_at, expires_after, has_expired) in [
            ("2030-01-01T00:00:00Z", "9m", Some(true)),
            ("2030-01-01T00:00:00Z", "11m", Some(false)),
            // The writer's clock is ahead.
            ("2030-01-01T01:00:00Z", "1s", Some(false)),
            ("2030-01-01T00:00:00Z", "soon", None),
            ("yesterday", "1s", None),
        ] {
            let row = format!("{renewed_at} {expires_after}");
            let renewal = renewal(json!({ RENEWED_AT: renewed_at, EXPIRES_AFTER: expires_after }));
            let at_once = renewal.map(|renewal| renewal.has_expired(now, Duration::ZERO));
            assert_eq!(at_once, has_expired, "{row}");
            let hour = Duration::from_secs(3600);
            assert!(
                renewal.is_none_or(|renewal| !renewal.has_expired(now, hour)),
                "{row}"
            );
        }
        assert_eq!(renewal(Value::Null), None);
    }
}
