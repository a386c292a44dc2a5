//! `SuccessBeforePassing` and `FailuresBeforeCritical`: how many results in a row change the status
//! of a check.

use crate::store::{CheckDefinition, CheckStatus};

/// Counts results in a row. The first result is always reported, as in Consul.
#[derive(Debug)]
pub(super) struct Threshold {
    success_before_passing: i64,
    failures_before_critical: i64,
    successes: i64,
    failures: i64,
}

impl Threshold {
    pub(super) fn new(check: &CheckDefinition) -> Self {
        Self {
            success_before_passing: check.success_before_passing,
            failures_before_critical: check.failures_before_critical,
            successes: check.success_before_passing,
            failures: check.failures_before_critical,
        }
    }

    /// Counts a result, and returns whether to report it.
    pub(super) fn is_reached(&mut self, status: CheckStatus) -> bool {
        if status == CheckStatus::Critical {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            self.failures >= self.failures_before_critical
        } else {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            self.successes >= self.success_before_passing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_result_is_reported_and_later_ones_once_there_are_enough_in_a_row() {
        let check = CheckDefinition {
            success_before_passing: 2,
            failures_before_critical: 3,
            ..CheckDefinition::default()
        };
        let mut threshold = Threshold::new(&check);
        let results = [
            (CheckStatus::Passing, true),
            (CheckStatus::Critical, false),
            (CheckStatus::Critical, false),
            (CheckStatus::Passing, false),
            (CheckStatus::Critical, false),
            (CheckStatus::Critical, false),
            (CheckStatus::Critical, true),
            (CheckStatus::Warning, false),
            (CheckStatus::Passing, true),
        ];
        for (i, (status, reported)) in results.into_iter().enumerate() {
            assert_eq!(threshold.is_reached(status), reported, "result {i}");
        }
    }
}
