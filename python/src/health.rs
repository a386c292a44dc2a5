//! `HealthChecks`: the checks of an application, as functions in Python.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use waypost::HealthChecks as RustChecks;
use waypost::health::{CheckFunction, HealthReport};

use crate::{errors, runtime};

/// The checks of one service, and whether it is ready for traffic.
#[pyclass(frozen)]
pub(crate) struct HealthChecks {
    checks: Mutex<RustChecks>,
}

impl HealthChecks {
    fn checks(&self) -> MutexGuard<'_, RustChecks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self) -> RustChecks {
        self.checks().clone()
    }
}

#[pymethods]
impl HealthChecks {
    #[new]
    fn new(service: &str) -> Self {
        Self {
            checks: Mutex::new(RustChecks::new(service)),
        }
    }

    /// Adds a check. `function` returns whether it passes, or an awaitable of that; `event_loop` is a
    /// function that returns the loop to await it in.
    fn add(
        &self,
        name: &str,
        function: Py<PyAny>,
        event_loop: Py<PyAny>,
        timeout: f64,
        critical: bool,
    ) -> PyResult<()> {
        let timeout = Duration::try_from_secs_f64(timeout).map_err(|error| {
            PyValueError::new_err(format!("timeout: {error}; use seconds, such as 0.9"))
        })?;
        let callback = Arc::new((function, event_loop, timeout.as_secs_f64()));
        let check = CheckFunction::blocking(name, move || run(&callback)).timeout(timeout);
        let check = if critical { check } else { check.advisory() };
        let mut checks = self.checks();
        *checks = checks.clone().with(check);
        Ok(())
    }

    #[getter]
    fn service(&self) -> String {
        self.checks().service().to_owned()
    }

    #[getter]
    fn ready(&self) -> bool {
        self.checks().is_ready()
    }

    /// Sets whether the service is ready for traffic.
    fn set_ready(&self, ready: bool) {
        self.checks().set_ready(ready);
    }

    /// Runs all checks. Returns whether the service should get requests, and the report in JSON.
    fn report(&self, py: Python<'_>) -> PyResult<(bool, String)> {
        let checks = self.get();
        let report = runtime::wait(py, async move { checks.report().await })?;
        to_json(&report)
    }

    fn report_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let checks = self.get();
        let report = async move { checks.report().await };
        runtime::into_asyncio(py, report, |py, report| {
            Ok(to_json(&report)?.into_pyobject(py)?.into_any().unbind())
        })
    }
}

fn to_json(report: &HealthReport) -> PyResult<(bool, String)> {
    let json = serde_json::to_string(report);
    let json = json.map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok((report.is_serving(), json))
}

type Callback = (Py<PyAny>, Py<PyAny>, f64);

/// Calls a check function. The error describes the problem.
fn run(callback: &Callback) -> Result<bool, String> {
    static RUN_CHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let (function, event_loop, timeout) = callback;
    let result = Python::try_attach(|py| {
        let call = || -> PyResult<bool> {
            let run_check = RUN_CHECK.import(py, "waypost._callbacks", "run_check")?;
            run_check.call1((function, event_loop, timeout))?.extract()
        };
        call().map_err(|error| errors::describe(py, &error))
    });
    result.unwrap_or_else(|| Err("the program is ending".to_owned()))
}
