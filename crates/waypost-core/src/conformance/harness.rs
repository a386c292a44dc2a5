//! The trait that the author of a provider implements to run the suite.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::model::Instance;
use crate::provider::Provider;

/// Gives the suite access to a provider and to the source behind it.
pub trait Harness: Send + Sync {
    /// The features that the provider supports.
    fn capabilities(&self) -> Capabilities;

    /// A provider with the content that was published last and, if it is [live](Capabilities::live),
    /// whatever is published later.
    fn provider(&self) -> Arc<dyn Provider>;

    /// Replaces the whole content of the source. Completes when the source has the new content.
    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()>;

    /// Makes the source fail, so that the provider can't get valid answers from it.
    fn inject_fault(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    /// Ends the failure; the content is as it was before.
    fn clear_fault(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    /// The time limit for each step of a case. Default: 10 s.
    fn step_timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// The features that a provider supports. Cases that need more are skipped.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// Running watches report changes of the content.
    pub live: bool,
    /// The source can fail.
    pub faults: bool,
    /// A service can have more than one instance.
    pub multiple_instances: bool,
    /// Ids, tags, metadata, versions and weights are preserved.
    pub details: bool,
    /// The names of all services can be listed.
    pub names: bool,
    /// The largest number of instances of a service to test with.
    pub max_instances: usize,
}

impl Capabilities {
    /// All capabilities, with up to 1,000 instances of a service.
    pub fn all() -> Self {
        Self {
            live: true,
            faults: true,
            multiple_instances: true,
            details: true,
            names: true,
            max_instances: 1000,
        }
    }

    /// The source never fails.
    #[must_use]
    pub fn without_faults(mut self) -> Self {
        self.faults = false;
        self
    }

    /// The content is fixed when the provider is created.
    #[must_use]
    pub fn without_changes(mut self) -> Self {
        self.live = false;
        self
    }

    /// Only the addresses of instances are known, as in DNS or in a list of URLs: a change of anything
    /// else is not reported.
    #[must_use]
    pub fn addresses_only(mut self) -> Self {
        self.details = false;
        self
    }

    /// The names of all services can't be listed.
    #[must_use]
    pub fn without_names(mut self) -> Self {
        self.names = false;
        self
    }

    /// Each service has a single instance, of which only the URL is known.
    #[must_use]
    pub fn single_address(mut self) -> Self {
        self.multiple_instances = false;
        self.details = false;
        self
    }
}
