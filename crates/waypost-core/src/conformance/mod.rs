//! A test suite that every provider must pass.
//!
//! Waypost's directory relies on rules that the types of [`Provider`](crate::provider::Provider) don't
//! express: that an answer is always complete, that an error never looks like an empty answer, that a
//! dropped watch releases its resources. This suite tests them. Waypost's own providers pass it. To
//! run it on a provider of your own, write a [`Harness`] that sets the content of the source behind
//! the provider and makes the source fail, and call [`run`] in a test.
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::{FutureExt, future::BoxFuture};
//! use waypost_core::Instance;
//! use waypost_core::conformance::{self, Capabilities, Harness};
//! use waypost_core::provider::{MemoryProvider, Provider};
//!
//! struct MemoryHarness(MemoryProvider);
//!
//! impl Harness for MemoryHarness {
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::all().without_faults()
//!     }
//!
//!     fn provider(&self) -> Arc<dyn Provider> {
//!         Arc::new(self.0.clone())
//!     }
//!
//!     fn publish(&self, content: Vec<Instance>) -> BoxFuture<'_, ()> {
//!         for name in ["alpha", "beta"] { /* … remove what was published before … */ }
//!         content.into_iter().for_each(|instance| self.0.insert(instance));
//!         async {}.boxed()
//!     }
//! }
//! # let _ = MemoryHarness(MemoryProvider::new()).capabilities();
//! # fn in_a_test(harness: &'static dyn Harness) { let _ = async move {
//! // In a test:
//! conformance::run(harness).await.assert();
//! # }; }
//! ```

mod cases;
mod harness;
mod report;
mod support;

pub use harness::{Capabilities, Harness};
pub use report::{CaseResult, ConformanceReport};

/// Runs all cases, one after the other. Cases that need a capability that the provider doesn't have
/// are skipped.
pub async fn run(harness: &dyn Harness) -> ConformanceReport {
    let mut report = ConformanceReport::default();
    for case in cases::ALL {
        let result = if (case.applies)(&harness.capabilities()) {
            harness.publish(Vec::new()).await;
            match (case.run)(harness).await {
                Ok(()) => CaseResult::Passed,
                Err(reason) => CaseResult::Failed(reason),
            }
        } else {
            CaseResult::Skipped
        };
        report.add(case.name, result);
    }
    harness.publish(Vec::new()).await;
    report
}
