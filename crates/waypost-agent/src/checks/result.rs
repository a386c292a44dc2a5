//! Results of checks, and the limits on their time and output.

use std::time::Duration;

use crate::store::{CheckDefinition, CheckResult, CheckStatus};

/// The timeout of a check whose definition has none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The maximum size of the output that is kept, in bytes, if the definition of the check sets none.
pub(super) const DEFAULT_OUTPUT_MAX_SIZE: usize = 4096;

/// The maximum size of the output of a check that is kept, in bytes.
pub(super) fn output_max_size(check: &CheckDefinition) -> usize {
    match usize::try_from(check.output_max_size) {
        Ok(size @ 1..) => size,
        _ => DEFAULT_OUTPUT_MAX_SIZE,
    }
}

/// The timeout of a check that is not a script.
pub(super) fn timeout_of(check: &CheckDefinition) -> Duration {
    check.timeout().unwrap_or(DEFAULT_TIMEOUT)
}

pub(super) fn passing(output: String) -> CheckResult {
    CheckResult {
        status: CheckStatus::Passing,
        output,
    }
}

pub(super) fn critical(output: String) -> CheckResult {
    CheckResult {
        status: CheckStatus::Critical,
        output,
    }
}
