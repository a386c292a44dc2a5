//! Results of active checks of one endpoint.

use std::sync::Arc;

/// How many equal results in a row change the state of an endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CheckThresholds {
    /// Passing checks that readmit.
    pub(crate) rise: u32,
    /// Failing checks that eject.
    pub(crate) fall: u32,
}

/// The latest results of active checks of one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckResults {
    /// How many in a row had the latest result.
    pub(crate) consecutive: u32,
    /// Why the latest check failed; `None` if it passed.
    pub(crate) failure: Option<Arc<str>>,
}

impl CheckResults {
    pub(super) fn add(&mut self, result: Result<(), Arc<str>>) {
        let failure = result.err();
        let is_same = self.failure.is_some() == failure.is_some();
        self.consecutive = if is_same {
            self.consecutive.saturating_add(1)
        } else {
            1
        };
        self.failure = failure;
    }
}
