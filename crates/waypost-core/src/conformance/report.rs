use std::fmt;

/// How each case went.
#[derive(Clone, Debug, Default)]
#[must_use = "call `assert`, or look at the cases"]
pub struct Report {
    cases: Vec<(&'static str, Outcome)>,
}

/// How one case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it must.
    Passed,
    /// The provider has no such ability.
    Skipped,
    /// Not as it must; the reason in words.
    Failed(
        /// What was expected, and what came.
        String,
    ),
}

impl Report {
    pub(super) fn add(&mut self, case: &'static str, outcome: Outcome) {
        self.cases.push((case, outcome));
    }

    /// The cases by name, in the order in which they ran.
    pub fn cases(&self) -> impl Iterator<Item = (&'static str, &Outcome)> {
        self.cases.iter().map(|(name, outcome)| (*name, outcome))
    }

    /// Whether no case failed.
    pub fn is_passed(&self) -> bool {
        let mut cases = self.cases.iter();
        cases.all(|(_, outcome)| !matches!(outcome, Outcome::Failed(_)))
    }

    /// Panics with the whole report unless all passed.
    ///
    /// # Panics
    /// If a case failed.
    pub fn assert(&self) {
        assert!(self.is_passed(), "the provider does not conform:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, outcome) in &self.cases {
            match outcome {
                Outcome::Passed => writeln!(f, "passed   {name}")?,
                Outcome::Skipped => writeln!(f, "skipped  {name}")?,
                Outcome::Failed(reason) => writeln!(f, "FAILED   {name}: {reason}")?,
            }
        }
        Ok(())
    }
}
