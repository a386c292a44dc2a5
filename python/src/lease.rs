//! `Lease`: an instance that was picked for one request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use waypost::integration::http::classify;
use waypost::{Lease as RustLease, Outcome};

use crate::instance::Instance;

/// An instance that was picked for one request, which is in flight until the lease is closed.
#[pyclass(frozen, extends = Instance, module = "waypost")]
pub(crate) struct Lease {
    /// `None` once it is closed.
    lease: Mutex<Option<RustLease>>,
    has_outcome: AtomicBool,
}

impl Lease {
    pub(crate) fn create(py: Python<'_>, lease: RustLease) -> PyResult<Py<Self>> {
        let instance = Instance::new(Arc::clone(lease.endpoint().instance()));
        let lease = Self {
            lease: Mutex::new(Some(lease)),
            has_outcome: AtomicBool::new(false),
        };
        Py::new(py, PyClassInitializer::from(instance).add_subclass(lease))
    }

    fn record(&self, outcome: Outcome) {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = &*lease {
            lease.record(outcome);
            self.has_outcome.store(true, Ordering::Relaxed);
        }
    }
}

#[pymethods]
impl Lease {
    /// The request was answered.
    fn succeeded(&self) {
        self.record(Outcome::Succeeded);
    }

    /// The request failed because of the instance.
    fn failed(&self) {
        self.record(Outcome::Failed);
    }

    /// The instance is overloaded; it gets no requests for `retry_after` seconds.
    #[pyo3(signature = (retry_after=None))]
    fn rejected(&self, retry_after: Option<f64>) -> PyResult<()> {
        let retry_after = retry_after.map(Duration::try_from_secs_f64).transpose();
        let retry_after = retry_after.map_err(|error| {
            PyValueError::new_err(format!("retry_after: {error}; use seconds, such as 1.5"))
        })?;
        self.record(Outcome::Rejected { retry_after });
        Ok(())
    }

    /// The request was answered over HTTP, with this status and `Retry-After` header.
    #[pyo3(signature = (status, retry_after=None))]
    fn responded(&self, status: u16, retry_after: Option<&str>) -> PyResult<()> {
        let status = StatusCode::from_u16(status).map_err(|_| {
            PyValueError::new_err(format!("{status} is not an HTTP status; use 100 to 999"))
        })?;
        let mut headers = HeaderMap::new();
        if let Some(Ok(value)) = retry_after.map(HeaderValue::from_str) {
            headers.insert(RETRY_AFTER, value);
        }
        self.record(classify(status, &headers));
        Ok(())
    }

    /// Ends the request. If no outcome was recorded, it counts as abandoned by its caller.
    fn close(&self) {
        let lease = self
            .lease
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(lease);
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(
        slf: &Bound<'_, Self>,
        _class: &Bound<'_, PyAny>,
        exception: Option<Bound<'_, PyAny>>,
        _traceback: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        static RECORD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let lease = slf.get();
        if !lease.has_outcome.load(Ordering::Relaxed) {
            match exception {
                None => lease.succeeded(),
                Some(exception) => {
                    let record =
                        RECORD.import(slf.py(), "waypost._callbacks", "record_exception")?;
                    record.call1((slf, exception))?;
                }
            }
        }
        lease.close();
        Ok(())
    }
}
