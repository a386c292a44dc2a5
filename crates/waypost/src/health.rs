//! The parts of [`HealthChecks`](crate::HealthChecks): check functions and their report.

pub use waypost_core::health::{
    CheckFunction, CheckReport, CheckStatus, DEFAULT_TIMEOUT, HealthReport, IntoCheckResult,
};
