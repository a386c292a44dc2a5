use std::time::Duration;

/// When an endpoint is ejected, for how long, and how many may be at a time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutlierDetection {
    /// Whether anything is ejected at all. True unless set.
    pub enabled: bool,
    /// How many failures in a row eject. 5 unless set; 0 turns this rule off.
    pub consecutive_failures: u32,
    /// The success rate below which an endpoint is ejected, over the current 10 s and the 10 s
    /// before. 0.5 unless set; 0 turns this rule off; more than 0.999 counts as that.
    pub success_rate: f64,
    /// How many outcomes there must be before the success rate counts. 20 unless set.
    pub minimum_requests: u32,
    /// How long the first ejection lasts; the nth in close succession lasts n times that, 10 %
    /// more or less by chance so that many clients don't return at once. 30 s unless set.
    pub base_ejection: Duration,
    /// The longest ejection. 300 s unless set.
    pub max_ejection: Duration,
    /// The share of the endpoints that may be ejected at a time, rounded down, though always one
    /// of two or three, and never the only one. 0.5 unless set.
    pub max_ejected: f64,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 5,
            success_rate: 0.5,
            minimum_requests: 20,
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

    /// How many of so many endpoints may be ejected at a time.
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
    fn small_fleets_keep_somebody() {
        let options = OutlierDetection::default();
        let allowed = [0, 1, 2, 3, 4, 5, 10].map(|n| options.allowed(n));
        assert_eq!(allowed, [0, 0, 1, 1, 2, 2, 5]);
    }
}
