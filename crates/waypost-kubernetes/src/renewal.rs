//! How fresh an instance from outside of the cluster is.
//!
//! Kubernetes checks nothing outside of pods. Who registers itself renews its slice each minute and
//! says in it until when that is good. Those who read it don't compare clocks, which may differ by
//! minutes: they count from when they saw the last renewal, as Kubernetes does with its nodes, and
//! only while they hear from the API server, since without it nobody can renew anything.

use std::time::{Duration, SystemTime};

use super::wire::Metadata;

/// The annotations that say it.
pub(super) const RENEWED_AT: &str = "waypost.dev/renewed-at";
pub(super) const EXPIRES_AFTER: &str = "waypost.dev/expires-after";

/// How often a slice is renewed, if nothing else is written. Each renewal is news to all who watch.
pub(super) const EVERY: Duration = Duration::from_secs(60);

/// After so long without a renewal an instance is taken for dead: the third one is missed.
pub(super) const OVERDUE: Duration = Duration::from_secs(3 * 60);

/// What a slice says of its freshness. One whose instance nobody checks says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Renewal {
    at: SystemTime,
    good_for: Duration,
}

impl Renewal {
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        let at = metadata.annotation(RENEWED_AT)?;
        let good_for = metadata.annotation(EXPIRES_AFTER)?;
        Some(Self {
            at: humantime::parse_rfc3339(at).ok()?,
            good_for: humantime::parse_duration(good_for).ok()?,
        })
    }

    /// Whether it is older than the one who wrote it said that it would ever be, by more than that.
    pub(super) fn has_expired(&self, now: SystemTime, grace: Duration) -> bool {
        let age = now.duration_since(self.at).unwrap_or(Duration::ZERO);
        age > self.good_for.saturating_add(grace)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_renewed_in_its_time_has_expired() {
        let of = |annotations: serde_json::Value| {
            let metadata = json!({ "annotations": annotations });
            Renewal::of(&serde_json::from_value(metadata).unwrap())
        };
        let now = humantime::parse_rfc3339("2030-01-01T00:10:00Z").unwrap();
        for (renewed, expires, has_expired) in [
            ("2030-01-01T00:00:00Z", "9m", Some(true)),
            ("2030-01-01T00:00:00Z", "11m", Some(false)),
            ("2030-01-01T01:00:00Z", "1s", Some(false)), // a clock that is ahead
            ("2030-01-01T00:00:00Z", "soon", None),
            ("yesterday", "1s", None),
        ] {
            let renewal = of(json!({ RENEWED_AT: renewed, EXPIRES_AFTER: expires }));
            let said = renewal.map(|renewal| renewal.has_expired(now, Duration::ZERO));
            assert_eq!(said, has_expired, "{renewed} {expires}");
            let hour = Duration::from_secs(3600);
            assert!(renewal.is_none_or(|renewal| !renewal.has_expired(now, hour)));
        }
        assert_eq!(of(serde_json::Value::Null), None);
    }
}
