//! The traffic of the last 15 minutes, second by second.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::counts::ServiceCounts;

/// The number of seconds that are kept.
pub(crate) const SECONDS: usize = 15 * 60;

/// The counts of one second; only of services with requests.
pub(crate) struct Second {
    /// Seconds since 1970.
    pub(crate) unix_second: u64,
    pub(crate) services: HashMap<Arc<str>, ServiceCounts>,
}

/// The traffic of one second: one small record for each service with requests.
#[derive(Clone, Default)]
pub(crate) struct History {
    pub(crate) last_second: u64,
    pub(crate) services: HashMap<Arc<str>, VecDeque<Bucket>>,
}

/// The requests to one service in one second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) unix_second: u64,
    pub(crate) requests: u64,
    pub(crate) failures: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

impl Bucket {
    pub(crate) fn new(unix_second: u64, counts: &ServiceCounts) -> Self {
        Self {
            unix_second,
            requests: counts.requests,
            failures: counts.failures,
            p50_ms: counts.latencies.quantile_ms(0.5),
            p99_ms: counts.latencies.quantile_ms(0.99),
        }
    }
}

impl History {
    pub(super) fn push(&mut self, second: &Second) {
        self.last_second = second.unix_second;
        for (name, counts) in &second.services {
            self.services
                .entry(Arc::clone(name))
                .or_default()
                .push_back(Bucket::new(second.unix_second, counts));
        }
        let oldest = second.unix_second.saturating_sub(SECONDS as u64);
        self.services.retain(|_, buckets| {
            while buckets
                .front()
                .is_some_and(|bucket| bucket.unix_second <= oldest)
            {
                buckets.pop_front();
            }
            !buckets.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_minutes_are_kept() {
        let mut history = History::default();
        for second in 1..2000 {
            let counts = ServiceCounts {
                requests: second,
                ..ServiceCounts::default()
            };
            let services = HashMap::from([(Arc::from("auth"), counts)]);
            history.push(&Second {
                unix_second: second,
                services,
            });
        }
        let buckets = &history.services["auth"];
        assert_eq!(buckets.len(), SECONDS);
        assert_eq!(buckets.back().map(|bucket| bucket.requests), Some(1999));
        history.push(&Second {
            unix_second: 3000,
            services: HashMap::new(),
        });
        assert!(history.services.is_empty());
    }
}
