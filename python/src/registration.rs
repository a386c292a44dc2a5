//! `Registrar`: keeps this program registered; and what is registered, from JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use serde::{Deserialize, Deserializer};
use tokio::time::timeout;
use waypost::{
    Check, ConfigError, Error, Health, HealthChecks, Host, Registrar as RustRegistrar,
    RegistrationState, ServiceRegistration, Weight,
};

use crate::instance::Instance;
use crate::{errors, runtime};

/// Keeps one instance registered until it is deregistered or the program ends.
#[pyclass(frozen)]
pub(crate) struct Registrar {
    registrar: Arc<RustRegistrar>,
    /// After a fork, the registration belongs to the parent process.
    generation: u64,
}

impl Registrar {
    pub(crate) fn new(registrar: RustRegistrar) -> Self {
        Self {
            registrar: Arc::new(registrar),
            generation: runtime::generation(),
        }
    }

    fn get(&self) -> PyResult<Arc<RustRegistrar>> {
        if self.generation == runtime::generation() {
            return Ok(Arc::clone(&self.registrar));
        }
        Err(PyRuntimeError::new_err(
            "this registration belongs to the parent process, which keeps it registered",
        ))
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        if self.generation != runtime::generation() {
            // Dropping it would take locks that a thread of the parent may have held at the fork.
            std::mem::forget(Arc::clone(&self.registrar));
        }
    }
}

#[pymethods]
impl Registrar {
    #[getter]
    fn instance(&self) -> PyResult<Instance> {
        let registrar = self.get()?;
        Ok(Instance::new(Arc::clone(
            registrar.registration().instance(),
        )))
    }

    /// Whether this process keeps the instance registered, and not the one that it was forked from.
    #[getter]
    fn is_own(&self) -> bool {
        self.get().is_ok()
    }

    /// `pending`, `registered`, `lost` or `deregistered`, and the latest error.
    fn state(&self) -> PyResult<(&'static str, Option<String>)> {
        Ok(match self.get()?.state() {
            RegistrationState::Pending(error) => ("pending", error.map(|e| e.to_string())),
            RegistrationState::Registered => ("registered", None),
            RegistrationState::Lost(error) => ("lost", Some(error.to_string())),
            RegistrationState::Deregistered(result) => {
                ("deregistered", result.err().map(|e| e.to_string()))
            }
            _ => ("unknown", None),
        })
    }

    /// Waits until the instance is registered, for at most this many seconds.
    fn wait(&self, py: Python<'_>, limit: f64) -> PyResult<bool> {
        let registrar = self.get()?;
        runtime::wait(py, registered(registrar, limit))
    }

    fn wait_async<'py>(&self, py: Python<'py>, limit: f64) -> PyResult<Bound<'py, PyAny>> {
        let registrar = self.get()?;
        runtime::into_asyncio(py, registered(registrar, limit), |py, registered| {
            Ok(registered.into_pyobject(py)?.to_owned().into_any().unbind())
        })
    }

    fn deregister(&self, py: Python<'_>) -> PyResult<()> {
        let registrar = self.get()?;
        let result = runtime::wait(py, async move { registrar.deregister().await })?;
        result.map_err(|error| errors::to_exception(py, &error))
    }

    fn deregister_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let registrar = self.get()?;
        let deregistered = async move { registrar.deregister().await };
        runtime::into_asyncio(py, deregistered, |py, result| match result {
            Ok(()) => Ok(py.None()),
            Err(error) => Err(errors::to_exception(py, &error)),
        })
    }

    /// Stops without deregistering.
    fn abandon(&self) -> PyResult<()> {
        self.get()?.abandon();
        Ok(())
    }

    fn enter_maintenance(&self, reason: &str) -> PyResult<()> {
        self.get()?.enter_maintenance(reason);
        Ok(())
    }

    fn leave_maintenance(&self) -> PyResult<()> {
        self.get()?.leave_maintenance();
        Ok(())
    }
}

/// Deregisters all of them at once.
#[pyfunction]
pub(crate) fn deregister_all(
    py: Python<'_>,
    registrars: Vec<PyRef<'_, Registrar>>,
) -> PyResult<()> {
    let own: PyResult<Vec<_>> = registrars.iter().map(|registrar| registrar.get()).collect();
    let own = own?;
    if own.is_empty() {
        return Ok(());
    }
    let results = runtime::wait(py, async move {
        join_all(own.iter().map(|registrar| registrar.deregister())).await
    })?;
    let result: Result<Vec<()>, Error> = results.into_iter().collect();
    result.map_err(|error| errors::to_exception(py, &error))?;
    Ok(())
}

async fn registered(registrar: Arc<RustRegistrar>, limit: f64) -> bool {
    let limit = Duration::try_from_secs_f64(limit).unwrap_or(Duration::MAX);
    timeout(limit, registrar.registered()).await.is_ok()
}

/// The data of a service, as `register_service` takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceData {
    id: Option<String>,
    address: Option<String>,
    port: u16,
    scheme: Option<String>,
    path: Option<String>,
    version: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default, alias = "metadata")]
    meta: BTreeMap<String, String>,
    weight: Option<u16>,
    zone: Option<String>,
    #[serde(default)]
    ports: BTreeMap<String, u16>,
    check: Option<CheckData>,
    #[serde(default)]
    checks: Vec<CheckData>,
}

/// A check, with the keys of Consul's check definitions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckData {
    http: Option<String>,
    tcp: Option<serde_json::Value>,
    grpc: Option<String>,
    args: Option<Vec<String>>,
    #[serde(default, deserialize_with = "duration")]
    ttl: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    interval: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    timeout: Option<Duration>,
    name: Option<String>,
    notes: Option<String>,
    method: Option<String>,
    #[serde(default)]
    header: BTreeMap<String, Vec<String>>,
    body: Option<String>,
    status: Option<Health>,
    success_before_passing: Option<u32>,
    failures_before_critical: Option<u32>,
    tls_server_name: Option<String>,
    #[serde(default)]
    tls_skip_verify: bool,
    #[serde(default, deserialize_with = "duration")]
    deregister_critical_service_after: Option<Duration>,
}

/// A registration from a service's name and its data in JSON.
pub(crate) fn parse(
    service: &str,
    json: &str,
    health: Option<HealthChecks>,
) -> Result<ServiceRegistration, Error> {
    let data: ServiceData = serde_json::from_str(json).map_err(|error| {
        // The position refers to JSON that the caller hasn't written, so it is removed.
        let text = error.to_string();
        let problem = text.split(" at line ").next().unwrap_or_default();
        ConfigError::new(format!("registration of {service:?}"), problem)
    })?;
    let mut registration = ServiceRegistration::new(service, data.port)?.tags(data.tags);
    if let Some(address) = data.address {
        registration = registration.host(address.parse::<Host>()?);
    }
    if let Some(id) = data.id {
        registration = registration.id(id);
    }
    if let Some(scheme) = data.scheme {
        registration = registration.scheme(scheme);
    }
    if let Some(path) = data.path {
        registration = registration.path_prefix(path);
    }
    if let Some(version) = data.version {
        registration = registration.version(version);
    }
    if let Some(weight) = data.weight {
        registration = registration.weight(Weight::new(weight));
    }
    if let Some(zone) = data.zone {
        registration = registration.zone(zone);
    }
    for (key, value) in data.meta {
        registration = registration.meta(key, value);
    }
    for (name, port) in data.ports {
        registration = registration.named_port(name, port);
    }
    for check in data.check.into_iter().chain(data.checks) {
        if let Some(after) = check.deregister_critical_service_after {
            registration = registration.deregister_critical_after(Some(after));
        }
        registration = registration.check(check.build(service)?);
    }
    if let Some(health) = health {
        registration = registration.health(health);
    }
    Ok(registration)
}

impl CheckData {
    fn build(self, service: &str) -> Result<Check, Error> {
        let kinds = [
            self.http.map(Check::http),
            self.tcp.map(|_| Check::tcp()),
            self.grpc.map(Check::grpc),
            self.args.map(Check::script),
            self.ttl.map(Check::ttl),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let (Some(mut check), None) = (kinds.next(), kinds.next()) else {
            let location = format!("check of {service:?}");
            let problem = "it needs exactly one of http, tcp, grpc, args and ttl";
            return Err(ConfigError::new(location, problem).into());
        };
        if let (Some(interval), None) = (self.interval, self.ttl) {
            check = check.every(interval);
        }
        if let Some(timeout) = self.timeout {
            check = check.timeout(timeout);
        }
        if let Some(name) = self.name {
            check = check.with_name(name);
        }
        if let Some(notes) = self.notes {
            check = check.with_notes(notes);
        }
        if let Some(method) = self.method {
            check = check.method(method);
        }
        for (name, values) in self.header {
            for value in values {
                check = check.header(&name, value);
            }
        }
        if let Some(body) = self.body {
            check = check.body(body);
        }
        if let Some(health) = self.status {
            check = check.with_initial_health(health);
        }
        if let Some(successes) = self.success_before_passing {
            check = check.with_rise(successes);
        }
        if let Some(failures) = self.failures_before_critical {
            check = check.with_fall(failures);
        }
        if let Some(name) = self.tls_server_name {
            check = check.with_tls_server_name(name);
        }
        if self.tls_skip_verify {
            check = check.with_tls_skip_verify();
        }
        Ok(check)
    }
}

/// A duration such as `10s`, or a number of seconds.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    use serde::de::Error;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Seconds(f64),
        Text(String),
    }
    let refused =
        |text: &str| D::Error::custom(format!("{text:?} is not a duration; use 10s or 1m"));
    match Form::deserialize(deserializer)? {
        Form::Seconds(seconds) => Duration::try_from_secs_f64(seconds)
            .map(Some)
            .map_err(|_| refused(&seconds.to_string())),
        Form::Text(text) => humantime::parse_duration(&text)
            .map(Some)
            .map_err(|_| refused(&text)),
    }
}
