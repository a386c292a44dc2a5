//! What every provider must do, tried on yours.
//!
//! Waypost's directory relies on rules that the types of [`Provider`] don't express:
//! that an answer is always whole, that an error never looks like an empty answer, that a dropped
//! watch leaves nothing behind. This suite tries them. The providers of this crate pass it, and a
//! provider of your own can be held to it by a test of a few lines: say how its content is set and
//! how it is made to fail, in a [`Harness`], and run the suite.
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::{FutureExt, future::BoxFuture};
//! use waypost_core::Instance;
//! use waypost_core::conformance::{self, Abilities, Harness};
//! use waypost_core::provider::{MemoryProvider, Provider};
//!
//! struct Memory(MemoryProvider);
//!
//! impl Harness for Memory {
//!     fn abilities(&self) -> Abilities {
//!         Abilities::all().never_failing()
//!     }
//!
//!     fn provider(&self) -> Arc<dyn Provider> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
//!         for name in ["alpha", "beta"] { /* … forget what was there … */ }
//!         content.into_iter().for_each(|instance| self.0.insert(instance));
//!         async {}.boxed()
//!     }
//! }
//! # let _ = Memory(MemoryProvider::new()).abilities();
//! # fn in_a_test(harness: &'static dyn Harness) { let _ = async move {
//! // In a test:
//! conformance::run(harness).await.assert();
//! # }; }
//! ```

mod cases;
mod content;
mod report;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

pub use report::{Outcome, Report};

use crate::model::Instance;
use crate::provider::Provider;

/// How the suite gets at a provider and at what is behind it.
pub trait Harness: Send + Sync {
    /// What the provider can do; what it can't is not tried.
    fn abilities(&self) -> Abilities;

    /// A provider of the content that was published last. With [`Abilities::live`] also of what
    /// is published later.
    fn provider(&self) -> Arc<dyn Provider>;

    /// Makes this the whole content: what is not in it is gone. Ends when the source has it.
    fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()>;

    /// Makes the source fail, so that the provider can't say anything true.
    fn break_down(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    /// Ends that, with the content as it was.
    fn heal(&self) -> BoxFuture<'_, ()> {
        async {}.boxed()
    }

    /// How long each step may take: 10 s unless said otherwise.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// What a provider can do.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Abilities {
    /// Changes of the content are told to running watches.
    pub live: bool,
    /// The source can fail.
    pub fails: bool,
    /// A service can have more than one instance.
    pub several: bool,
    /// Ids, tags, metadata, versions and weights arrive as they were published.
    pub details: bool,
    /// The most instances of a service that are sensible.
    pub most: usize,
}

impl Abilities {
    /// All there is to be able to, with up to 1,000 instances of a service.
    pub fn all() -> Self {
        Self {
            live: true,
            fails: true,
            several: true,
            details: true,
            most: 1000,
        }
    }

    /// A source that never fails.
    #[must_use]
    pub fn never_failing(mut self) -> Self {
        self.fails = false;
        self
    }

    /// A content that is fixed when the provider is made.
    #[must_use]
    pub fn fixed(mut self) -> Self {
        self.live = false;
        self
    }

    /// Services of one instance without any details.
    #[must_use]
    pub fn single_addresses(mut self) -> Self {
        self.several = false;
        self.details = false;
        self
    }
}

/// Runs all cases, one after the other.
pub async fn run(harness: &dyn Harness) -> Report {
    let mut report = Report::default();
    for case in cases::ALL {
        let abilities = harness.abilities();
        let outcome = match (case.needs)(&abilities) {
            false => Outcome::Skipped,
            true => {
                harness.publish(Vec::new()).await;
                match (case.run)(harness).await {
                    Ok(()) => Outcome::Passed,
                    Err(reason) => Outcome::Failed(reason),
                }
            }
        };
        report.add(case.name, outcome);
    }
    harness.publish(Vec::new()).await;
    report
}
