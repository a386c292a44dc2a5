//! `Instance`: one instance of a service.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use waypost::provider::FallbackProvider;
use waypost::{Instance as RustInstance, ServiceName};

use crate::errors;

/// One instance of a service, as the provider describes it.
#[pyclass(frozen, subclass, module = "waypost")]
pub(crate) struct Instance {
    inner: Arc<RustInstance>,
}

impl Instance {
    pub(crate) fn new(inner: Arc<RustInstance>) -> Self {
        Self { inner }
    }
}

/// The instance at a URL.
#[pyfunction]
pub(crate) fn fallback_instance(py: Python<'_>, service: &str, url: &str) -> PyResult<Instance> {
    let instance = || FallbackProvider::new(url)?.instance(&ServiceName::new(service)?);
    let instance = instance().map_err(|error| errors::invalid(py, error))?;
    Ok(Instance::new(Arc::new(instance)))
}

#[pymethods]
impl Instance {
    #[getter]
    fn id(&self) -> &str {
        self.inner.id().as_str()
    }

    #[getter]
    fn service(&self) -> &str {
        self.inner.service().as_str()
    }

    #[getter]
    fn url(&self) -> &str {
        self.inner.url()
    }

    #[getter]
    fn scheme(&self) -> &str {
        self.inner.scheme()
    }

    #[getter]
    fn address(&self) -> String {
        self.inner.host().bare()
    }

    #[getter]
    fn port(&self) -> u16 {
        self.inner.port()
    }

    #[getter]
    fn path_prefix(&self) -> &str {
        self.inner.path_prefix()
    }

    #[getter]
    fn version(&self) -> Option<&str> {
        self.inner.version()
    }

    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.inner.tags())
    }

    #[getter]
    fn meta<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let meta = PyDict::new(py);
        for (key, value) in self.inner.metadata() {
            meta.set_item(key, value)?;
        }
        Ok(meta)
    }

    #[getter]
    fn weight(&self) -> u32 {
        self.inner.weight().get()
    }

    #[getter]
    fn zone(&self) -> Option<&str> {
        self.inner.zone()
    }

    #[getter]
    fn health(&self) -> &'static str {
        self.inner.health().as_str()
    }

    #[getter]
    fn ports<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ports = PyDict::new(py);
        for (name, port) in self.inner.ports() {
            ports.set_item(name, port)?;
        }
        Ok(ports)
    }

    /// The base URL joined with a path by exactly one slash.
    fn url_for(&self, path: &str) -> String {
        self.inner.url_for(path)
    }

    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        dict.set_item("url", self.url())?;
        dict.set_item("address", self.address())?;
        dict.set_item("port", self.port())?;
        dict.set_item("tags", self.tags(py)?)?;
        dict.set_item("meta", self.meta(py)?)?;
        dict.set_item("version", self.version())?;
        dict.set_item("health", self.health())?;
        dict.set_item("id", self.id())?;
        dict.set_item("service", self.service())?;
        dict.set_item("scheme", self.scheme())?;
        dict.set_item("zone", self.zone())?;
        dict.set_item("weight", self.weight())?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        let (id, url, health) = (self.id(), self.url(), self.health());
        format!(
            "<Instance {id:?} of {:?} at {url}, {health}>",
            self.service()
        )
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        let other = other.cast::<Self>();
        other.is_ok_and(|other| self.inner == other.get().inner)
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (self.service(), self.id()).hash(&mut hasher);
        hasher.finish()
    }
}
