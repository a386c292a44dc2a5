//! How long the instances of a service are believed in, where they must be renewed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::{Members, Part};
use crate::join;
use crate::renewal::{OVERDUE, Renewal};
use crate::wire::Slice;

/// How long we believe in an instance that must be renewed, by our own clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    renewal: Renewal,
    until: Instant,
    pub(super) is_over: bool,
}

impl Lease {
    /// That of a slice, after the one it had. A new renewal is a new lease. When a slice is seen for
    /// the first time, only what it says of itself can tell how old it is.
    pub(super) fn of(slice: &Slice, before: Option<Self>) -> Option<Self> {
        let renewal = Renewal::of(&slice.metadata)?;
        let until = Instant::now() + OVERDUE;
        Some(match before {
            Some(before) if before.renewal == renewal => before,
            _ => Self {
                renewal,
                until,
                is_over: before.is_none() && renewal.has_expired(SystemTime::now(), Duration::ZERO),
            },
        })
    }

    /// When it will be over, if it isn't.
    pub(super) fn due(self) -> Option<Instant> {
        (!self.is_over).then_some(self.until)
    }

    pub(super) fn ended(self) -> Self {
        Self {
            is_over: true,
            ..self
        }
    }

    /// As if it had been renewed now, unless it is over.
    pub(super) fn extended(self) -> Self {
        Self {
            until: Instant::now() + OVERDUE,
            ..self
        }
    }
}

impl Members {
    /// When to look for what is overdue, if anything ever may be.
    pub(in super::super) fn next_due(&self) -> Option<Instant> {
        self.next_due
    }

    /// Takes for dead what is overdue now. Says whether that is anything.
    pub(in super::super) fn end_leases(&mut self, now: Instant) -> bool {
        let is_due = |part: &Part| {
            part.lease
                .and_then(Lease::due)
                .is_some_and(|due| due <= now)
        };
        let parts = self.slices.iter().filter(|(_, part)| is_due(part));
        let over: Vec<_> = parts.map(|(name, _)| Arc::clone(name)).collect();
        for name in &over {
            let Some(part) = self.take(name) else {
                continue;
            };
            let service = &self.context.name;
            tracing::warn!(slice = &**name, %service, "its instance isn't renewed any more, so it isn't used");
            let instances = join::instances(&self.context, &part.slice, true, None);
            self.insert(&part.slice, instances, part.lease.map(Lease::ended));
        }
        self.find_next_due();
        !over.is_empty()
    }

    /// Nobody could renew anything until now.
    pub(in super::super) fn extend_leases(&mut self) {
        for part in self.slices.values_mut() {
            part.lease = part.lease.map(Lease::extended);
        }
        self.find_next_due();
    }

    fn find_next_due(&mut self) {
        let parts = self.slices.values();
        self.next_due = earliest(parts.map(|part| part.lease.and_then(Lease::due)));
    }
}

pub(super) fn earliest(times: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    times.into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_core::Health;

    use super::super::tests::members;
    use super::*;

    fn registered(renewed: &str) -> Arc<Slice> {
        let slice = json!({
            "metadata": { "name": "waypost-a", "annotations": {
                "waypost.dev/id": "a",
                "waypost.dev/renewed-at": renewed,
                "waypost.dev/expires-after": "10m",
            }},
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 80 }],
            "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": true } }],
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    fn only(members: &Members) -> Health {
        let all = members.all();
        assert_eq!(all.len(), 1);
        all[0].health()
    }

    /// It is the renewals that count, not what clocks of other machines say, and an outage, in
    /// which there are none, is nobody's fault.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_renewed_any_more_is_critical_until_it_is() {
        let minutes = |n: u64| std::time::Duration::from_secs(60 * n);
        let mut members = members();
        members.put(&registered("2999-01-01T00:00:00Z"));
        assert_eq!(only(&members), Health::Passing);
        tokio::time::advance(minutes(2)).await;
        assert!(!members.end_leases(Instant::now()));
        members.put(&registered("2999-01-01T00:01:00Z"));
        tokio::time::advance(minutes(2)).await;
        assert!(!members.end_leases(Instant::now()), "it was renewed");
        tokio::time::advance(minutes(30)).await;
        members.extend_leases();
        assert!(
            !members.end_leases(Instant::now()),
            "it couldn't be renewed"
        );
        assert_eq!(only(&members), Health::Passing);
        assert_eq!(members.next_due(), Some(Instant::now() + minutes(3)));
        tokio::time::advance(minutes(3)).await;
        assert!(members.end_leases(Instant::now()));
        assert_eq!(only(&members), Health::Critical);
        assert_eq!(members.next_due(), None);
        members.extend_leases();
        assert_eq!(only(&members), Health::Critical);
        // Its clock is years behind, but it lives.
        members.put(&registered("2001-01-01T00:00:00Z"));
        assert_eq!(only(&members), Health::Passing);
        // Somebody new has nothing but the clock, and the word of the one who wrote it.
        members.replace([].iter());
        members.put(&registered("2001-01-01T00:00:00Z"));
        assert_eq!(only(&members), Health::Critical);
    }
}
