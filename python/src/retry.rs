//! `RetryBudget`: limits the retries of an HTTP client.

use pyo3::prelude::*;
use waypost::integration::retry::RetryBudget as RustBudget;

/// Limits retries to 20 % of the requests of about the last ten seconds, plus one per second.
#[pyclass(frozen)]
pub(crate) struct RetryBudget(RustBudget);

#[pymethods]
impl RetryBudget {
    #[new]
    fn new() -> Self {
        Self(RustBudget::new())
    }

    /// Counts a request.
    fn deposit(&self) {
        self.0.deposit();
    }

    /// Whether a retry is allowed. If so, it is counted.
    fn withdraw(&self) -> bool {
        self.0.withdraw()
    }
}
