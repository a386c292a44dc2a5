//! Outlier detection: ejects endpoints that fail requests, and readmits them later.
//!
//! The registry says which instances are healthy; this module uses the outcomes of this process's
//! requests. An endpoint that fails too often is *ejected* for a while, as in Envoy: after
//! [consecutive failures](OutlierDetection::consecutive_failures), by its
//! [success rate](OutlierDetection::success_rate), when it requests a pause, or when active checks fail.
//! When the ejection has expired, single trial requests decide whether the endpoint is readmitted.
//!
//! Outcomes are counted per endpoint, by instance id, and survive updates from the registry.
//! Counting an outcome is a few atomic operations; the detector's lock is taken only to eject or to
//! readmit.

mod check_results;
mod detector;
mod ejection;
mod events;
mod options;
pub(crate) mod outcome;
mod window;

pub(crate) use check_results::CheckThresholds;
pub(crate) use detector::{EndpointView, OutlierDetector};
pub(crate) use ejection::{Ejection, EjectionStatus};
pub use events::{BalanceCounters, BalanceEvent, BalanceEvents, EjectionCause};
pub use options::OutlierDetection;
pub(crate) use outcome::Outcome;
pub(crate) use window::OutcomeWindow;
