use std::sync::Arc;
use std::time::Duration;

use super::key::hash;

/// What happens to the weights of endpoints before a strategy sees them.
///
/// ```
/// # use std::time::Duration;
/// use waypost::BalancerOptions;
/// let options = BalancerOptions::default()
///     .zone("eu-west-1a")
///     .slow_start(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug)]
pub struct BalancerOptions {
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) slow_start: Option<Duration>,
    pub(crate) subset: Option<Subset>,
    pub(crate) panic_threshold: f64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Subset {
    pub(crate) size: usize,
    pub(crate) client: u64,
}

impl Default for BalancerOptions {
    fn default() -> Self {
        Self {
            zone: None,
            slow_start: None,
            subset: None,
            panic_threshold: 0.5,
        }
    }
}

impl BalancerOptions {
    /// Prefers endpoints of this zone. All requests stay in it as long as its healthy endpoints
    /// carry at least 1/1.4 of the weight of an average zone; below that, what they lack goes to
    /// the other zones in proportion. Off unless set.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Lets an endpoint that came after the first answer begin with a tenth of its weight and
    /// grow to all of it in this time. Off unless set.
    #[must_use]
    pub fn slow_start(mut self, window: Duration) -> Self {
        self.slow_start = (!window.is_zero()).then_some(window);
        self
    }

    /// Uses only so many endpoints of a service of 100 or more, others in each client: those
    /// that rendezvous hashing gives to the client's name, so that few change when endpoints come
    /// and go. Off unless set.
    #[must_use]
    pub fn subset(mut self, size: usize, client: &str) -> Self {
        self.subset = (size > 0).then(|| Subset {
            size,
            client: hash(2, client.as_bytes()),
        });
        self
    }

    /// The share of healthy endpoints, from 0 to 1, below which ejections are disregarded: when
    /// so many seem to be sick, the fault may well be ours. Of up to three endpoints one is enough.
    /// 0.5 unless set.
    #[must_use]
    pub fn panic_threshold(mut self, share: f64) -> Self {
        self.panic_threshold = share.clamp(0.0, 1.0);
        self
    }
}
