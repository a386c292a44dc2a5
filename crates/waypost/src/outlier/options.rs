//! Options of outlier detection.

use std::time::Duration;

/// When an endpoint is ejected, for how long, and how many may be ejected at a time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutlierDetection {
    /// Whether endpoints are ejected at all. True by default.
    pub enabled: bool,
    /// How many consecutive failures eject. 5 by default; 0 turns this rule off; more than 255 counts
    /// as 255.
    ///
    /// A request that is dropped without an outcome after [`abandoned_after`](Self::abandoned_after)
    /// counts here as a failure.
    pub consecutive_failures: u32,
    /// The success rate below which an endpoint is ejected, over the current 10 s and the 10 s before.
    /// 0.5 by default; 0 turns this rule off; more than 0.999 counts as 0.999.
    pub success_rate: f64,
    /// How many outcomes there must be before the success rate is used. 20 by default.
    pub minimum_requests: u32,
    /// A lease that is dropped without an outcome after at least this time counts as a consecutive
    /// failure: its caller gave up waiting, most likely because of a timeout. It doesn't count in the
    /// success rate, since callers also cancel for unrelated reasons. 100 ms by default;
    /// [`Duration::MAX`] turns this rule off.
    pub abandoned_after: Duration,
    /// How long the first ejection lasts; the nth consecutive one lasts n times that, with 10 % jitter
    /// so that many clients don't return at the same time. 30 s by default.
    pub base_ejection: Duration,
    /// The longest ejection. 300 s by default, at most ten years.
    pub max_ejection: Duration,
    /// The share of the endpoints that may be ejected at the same time, rounded down. One of two or three
    /// may always be ejected, the only one never. 0.5 by default.
    pub max_ejected: f64,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 5,
            success_rate: 0.5,
            minimum_requests: 20,
            abandoned_after: Duration::from_millis(100),
            base_ejection: Duration::from_secs(30),
            max_ejection: Duration::from_secs(300),
            max_ejected: 0.5,
        }
    }
}

impl OutlierDetection {
    /// Ejects nothing.
    pub fn off() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// The longest ejection in use, so that times don't overflow.
    pub(super) fn max_ejection(&self) -> Duration {
        const TEN_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        self.max_ejection.min(TEN_YEARS)
    }

    /// How many of `endpoints` may be ejected at a time.
    pub(super) fn allowed(&self, endpoints: usize) -> usize {
        match endpoints {
            0 | 1 => 0,
            2 | 3 => 1,
            _ => (endpoints as f64 * self.max_ejected.clamp(0.0, 1.0)) as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_leaves_an_endpoint_in_use() {
        let options = OutlierDetection::default();
        let allowed = [0, 1, 2, 3, 4, 5, 10].map(|n| options.allowed(n));
        assert_eq!(allowed, [0, 0, 1, 1, 2, 2, 5]);
        // Of two or three, it is one whatever the share is.
        for (max_ejected, expected) in [(0.0, [0, 1, 1, 0]), (1.0, [0, 1, 1, 4])] {
            let options = OutlierDetection {
                max_ejected,
                ..OutlierDetection::default()
            };
            let allowed = [1, 2, 3, 4].map(|n| options.allowed(n));
            assert_eq!(allowed, expected, "{max_ejected}");
        }
    }
}
