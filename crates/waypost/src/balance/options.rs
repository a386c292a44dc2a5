//! Options of a balancer.

use std::sync::Arc;
use std::time::Duration;

use waypost_core::Instance;

use super::key::hash;
use crate::selector::Selector;

/// How the weights of endpoints are changed before a strategy sees them.
///
/// ```
/// # use std::time::Duration;
/// use waypost::balance::BalancerOptions;
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
    pub(crate) selector: Option<Arc<Selector>>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Subset {
    pub(crate) size: usize,
    pub(crate) client: SubsetClient,
}

/// The value that determines a client's subset.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SubsetClient {
    /// The hash of its name.
    Named(u64),
    /// Its number among all clients of the service, from 0.
    Numbered(usize),
}

impl Default for BalancerOptions {
    fn default() -> Self {
        Self {
            zone: None,
            slow_start: None,
            subset: None,
            panic_threshold: 0.5,
            selector: None,
        }
    }
}

impl BalancerOptions {
    /// Prefers endpoints of this zone. All requests stay in it while its healthy endpoints have at
    /// least 1/1.4 of the weight of an average zone; below that, the missing share goes to the other
    /// zones. Off by default.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Lets an endpoint that was added after the first answer start with a tenth of its weight and
    /// reach the full weight in this time. Off by default.
    #[must_use]
    pub fn slow_start(mut self, window: Duration) -> Self {
        self.slow_start = (!window.is_zero()).then_some(window);
        self
    }

    /// Uses only `size` endpoints of a service that has 100 or more. Each client uses different ones,
    /// chosen by rendezvous hashing of the client's name, so that few change when endpoints are added
    /// or removed. Off by default.
    ///
    /// The subsets are random, so some endpoints are in several and some in none: of 200 endpoints, about
    /// 26 are in no subset of 40 clients with 10 endpoints each, and one is in 6. Where clients have
    /// consecutive numbers, use [`subset_of`](Self::subset_of).
    #[must_use]
    pub fn subset(self, size: usize, client: &str) -> Self {
        self.with_subset(size, SubsetClient::Named(hash(2, client.as_bytes())))
    }

    /// Like [`subset`](Self::subset), for clients that are numbered consecutively from 0, as the pods of a
    /// StatefulSet are. All endpoints are in the same number of subsets, or in one more or less:
    /// deterministic subsetting, as in "Site Reliability Engineering" (Beyer and others, 2016, chapter
    /// 20).
    #[must_use]
    pub fn subset_of(self, size: usize, client: usize) -> Self {
        self.with_subset(size, SubsetClient::Numbered(client))
    }

    fn with_subset(mut self, size: usize, client: SubsetClient) -> Self {
        self.subset = (size > 0).then_some(Subset { size, client });
        self
    }

    /// The share of healthy endpoints, from 0 to 1, below which ejections are ignored: if so many
    /// endpoints seem to fail, the cause is more likely in this process or its network. With up to three
    /// endpoints, one healthy endpoint is enough. 0.5 by default.
    #[must_use]
    pub fn panic_threshold(mut self, share: f64) -> Self {
        self.panic_threshold = share.clamp(0.0, 1.0);
        self
    }

    /// Uses only the instances that the selector accepts. If it accepts none, a pick fails with
    /// [`Error::NoMatch`](crate::Error::NoMatch). Zone, subset and panic threshold are applied to the
    /// accepted instances. Off by default.
    #[must_use]
    pub fn selector(mut self, selector: impl Into<Arc<Selector>>) -> Self {
        self.selector = Some(selector.into()).filter(|selector| !selector.is_empty());
        self
    }

    /// Whether the selector, if there is one, accepts an instance.
    pub(super) fn selects(&self, instance: &Instance) -> bool {
        (self.selector.as_ref()).is_none_or(|selector| selector.matches(instance))
    }
}
