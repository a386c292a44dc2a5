//! The results of a run of the suite.

use std::fmt;

/// The result of each case.
#[derive(Clone, Debug, Default)]
#[must_use = "call `assert`, or inspect the cases"]
pub struct ConformanceReport {
    cases: Vec<(&'static str, CaseResult)>,
}

/// The result of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CaseResult {
    /// The provider behaves as required.
    Passed,
    /// The provider doesn't have the capability that the case needs.
    Skipped,
    /// The provider behaves differently.
    Failed(
        /// What was expected, and what happened.
        String,
    ),
}

impl ConformanceReport {
    pub(super) fn add(&mut self, case: &'static str, result: CaseResult) {
        self.cases.push((case, result));
    }

    /// The cases by name, in the order in which they ran.
    pub fn cases(&self) -> impl Iterator<Item = (&'static str, &CaseResult)> {
        self.cases.iter().map(|(name, result)| (*name, result))
    }

    /// Whether no case failed.
    pub fn is_passed(&self) -> bool {
        let mut cases = self.cases.iter();
        cases.all(|(_, result)| !matches!(result, CaseResult::Failed(_)))
    }

    /// Asserts that no case failed.
    ///
    /// # Panics
    /// If a case failed; the message is the whole report.
    pub fn assert(&self) {
        assert!(self.is_passed(), "the provider does not conform:\n{self}");
    }
}

impl fmt::Display for ConformanceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, result) in &self.cases {
            match result {
                CaseResult::Passed => writeln!(f, "passed   {name}")?,
                CaseResult::Skipped => writeln!(f, "skipped  {name}")?,
                CaseResult::Failed(reason) => writeln!(f, "FAILED   {name}: {reason}")?,
            }
        }
        Ok(())
    }
}
