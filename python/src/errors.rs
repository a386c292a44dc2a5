//! The library's errors as exceptions of `waypost.errors`, and back.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use waypost::{Error, Invalid, ProviderError, ProviderErrorKind};

/// The exception for an error.
pub(crate) fn to_exception(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::UnknownService { .. } => "UnknownService",
        Error::NoInstances { .. } => "NoInstances",
        Error::NoneHealthy { .. } => "NoneHealthy",
        Error::NoMatch { .. } => "NoUsableInstance",
        Error::Stale { .. } => "Stale",
        Error::Unreachable { .. } => "RegistryUnreachable",
        Error::NotAuthorised { .. } => "NotAuthorised",
        Error::TimedOut { .. } => "TimedOut",
        Error::Unsupported(_) => "Unsupported",
        Error::Rejected(_) => "Rejected",
        Error::Invalid(_) => "InvalidArgument",
        Error::Config(_) => "ConfigError",
        _ => "WaypostError",
    };
    build(py, class, error).unwrap_or_else(|error| error)
}

fn build(py: Python<'_>, class: &str, error: &Error) -> PyResult<PyErr> {
    let details = PyDict::new(py);
    details.set_item("service", service_of(error))?;
    details.set_item("provider", error.provider())?;
    details.set_item("age", error.age().map(|age| age.as_secs_f64()))?;
    details.set_item("retryable", error.is_retryable())?;
    let class = class_named(py, class)?;
    let exception = class.call((error.to_string(),), Some(&details))?;
    Ok(PyErr::from_value(exception))
}

fn service_of(error: &Error) -> Option<&str> {
    match error {
        Error::UnknownService { service, .. }
        | Error::NoInstances { service, .. }
        | Error::NoneHealthy { service, .. }
        | Error::NoMatch { service, .. } => Some(service.as_str()),
        Error::Stale { service, .. }
        | Error::Unreachable { service, .. }
        | Error::NotAuthorised { service, .. }
        | Error::TimedOut { service, .. } => service.as_ref().map(|service| service.as_str()),
        _ => None,
    }
}

fn class_named<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    static MODULE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        PyResult::Ok(py.import("waypost.errors")?.into_any().unbind())
    })?;
    Ok(module.bind(py).getattr(name)?.cast_into()?)
}

/// The exception for an argument that is not valid.
pub(crate) fn invalid(py: Python<'_>, invalid: Invalid) -> PyErr {
    to_exception(py, &invalid.into())
}

/// The meaning of an exception from a provider written in Python.
pub(crate) enum Raised {
    /// `UnknownService`: an answer.
    Unknown,
    /// A failed attempt.
    Failed(ProviderError),
}

/// Reads an exception that a provider written in Python has raised.
pub(crate) fn from_provider(py: Python<'_>, provider: &str, exception: &PyErr) -> Raised {
    let is = |class: &str| {
        class_named(py, class).is_ok_and(|class| exception.is_instance(py, class.as_any()))
    };
    if is("UnknownService") {
        return Raised::Unknown;
    }
    let kind = if is("NotAuthorised") {
        ProviderErrorKind::NotAuthorised
    } else if is("Unsupported") {
        ProviderErrorKind::Unsupported
    } else if is("Rejected") || is("InvalidArgument") {
        ProviderErrorKind::Rejected
    } else {
        ProviderErrorKind::Unreachable
    };
    Raised::Failed(ProviderError::new(provider, kind, describe(py, exception)))
}

/// The exception in one line, with its class unless it is one of ours.
pub(crate) fn describe(py: Python<'_>, exception: &PyErr) -> String {
    let text = exception.value(py).to_string();
    let ours = class_named(py, "WaypostError");
    if ours.is_ok_and(|class| exception.is_instance(py, class.as_any())) {
        return text;
    }
    let name = exception.get_type(py).name();
    let name = name.map_or_else(|_| "an exception".to_owned(), |name| name.to_string());
    if text.is_empty() {
        name
    } else {
        format!("{name}: {text}")
    }
}
