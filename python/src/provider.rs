//! A provider that is written in Python, as one of the library.
//!
//! Python objects are called on blocking threads. They can't report changes, so a watch calls them after
//! each interval, and reports an answer if it differs from the one before.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use pyo3::prelude::*;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use waypost::provider::{
    CheckKind, HeartbeatResponse, InstanceReport, NamesWatch, Provider, Registration, Registry,
    ServiceAnswer, Watch, services_from_json,
};
use waypost::{InstanceId, ProviderError, ProviderErrorKind, ServiceName};

use crate::errors::{self, Raised};

/// The number of concurrent method calls of one provider.
const CONCURRENT_CALLS: usize = 4;

/// The time limit of a method.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// A `waypost.discovery.ServiceDiscovery`.
#[derive(Clone)]
pub(crate) struct PythonProvider {
    object: Arc<Py<PyAny>>,
    description: Arc<str>,
    interval: Duration,
    registers: bool,
    calls: Arc<Semaphore>,
}

impl PythonProvider {
    /// Reads the object's description and settings.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let interval: f64 = object.getattr("refresh_interval")?.extract()?;
        let interval = Duration::try_from_secs_f64(interval).map_err(|error| {
            pyo3::exceptions::PyValueError::new_err(format!(
                "refresh_interval: {error}; use seconds, such as 5.0"
            ))
        })?;
        Ok(Self {
            description: object.call_method0("describe")?.extract::<String>()?.into(),
            interval: interval.max(Duration::from_millis(10)),
            registers: object.call_method0("_registers")?.is_truthy()?,
            object: Arc::new(object.clone().unbind()),
            calls: Arc::new(Semaphore::new(CONCURRENT_CALLS)),
        })
    }

    /// Calls a method with text as its arguments. `None` if it raises `UnknownService`.
    async fn call<T>(
        &self,
        method: &'static str,
        arguments: Vec<String>,
    ) -> Result<Option<T>, ProviderError>
    where
        T: for<'a, 'py> FromPyObject<'a, 'py> + Send + 'static,
    {
        let this = self.clone();
        let call = async {
            let permit = Arc::clone(&self.calls).acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                // Held until the method returns, even if its caller no longer waits.
                let _permit = permit;
                Python::try_attach(|py| this.call_attached(py, method, arguments))
            })
            .await
        };
        match timeout(CALL_LIMIT, call).await {
            Ok(Ok(Some(result))) => result,
            Ok(_) => Err(self.error(ProviderErrorKind::Unreachable, "the program is ending")),
            Err(_) => {
                let after = CALL_LIMIT;
                let message = "its method has not returned";
                Err(self.error(ProviderErrorKind::TimedOut { after }, message))
            }
        }
    }

    fn call_attached<T>(
        &self,
        py: Python<'_>,
        method: &str,
        arguments: Vec<String>,
    ) -> Result<Option<T>, ProviderError>
    where
        T: for<'a, 'py> FromPyObject<'a, 'py>,
    {
        let call = || -> PyResult<Option<T>> {
            let arguments = pyo3::types::PyTuple::new(py, arguments)?;
            let result = self.object.bind(py).call_method1(method, arguments)?;
            if result.is_none() {
                return Ok(None);
            }
            result.extract().map(Some).map_err(Into::into)
        };
        call().or_else(
            |exception| match errors::from_provider(py, &self.description, &exception) {
                Raised::Unknown => Ok(None),
                Raised::Failed(error) => Err(error),
            },
        )
    }

    fn error(&self, kind: ProviderErrorKind, message: &str) -> ProviderError {
        ProviderError::new(Arc::clone(&self.description), kind, message)
    }

    async fn answer(&self, service: &ServiceName) -> Result<ServiceAnswer, ProviderError> {
        let json = self.call::<String>("_answer", vec![service.to_string()]);
        let Some(json) = json.await? else {
            return Ok(ServiceAnswer::Unknown);
        };
        let services = services_from_json("the answer", &json).map_err(|error| {
            let message = error.problem().to_owned();
            self.error(ProviderErrorKind::InvalidResponse, &message)
        })?;
        let instances = services.into_values().flatten().collect();
        Ok(ServiceAnswer::Instances(instances))
    }

    async fn names(&self) -> Result<BTreeSet<ServiceName>, ProviderError> {
        let names = self.call::<Vec<String>>("_names", Vec::new()).await?;
        let names = names.unwrap_or_default().into_iter().map(|name| {
            ServiceName::new(&name).map_err(|invalid| {
                self.error(ProviderErrorKind::InvalidResponse, &invalid.to_string())
            })
        });
        names.collect()
    }
}

/// Calls `ask` after each interval. Ends after an error, so that the directory tries again after a
/// backoff.
fn poll<T, F>(interval: Duration, ask: F) -> BoxStream<'static, Result<T, ProviderError>>
where
    T: Clone + PartialEq + Send + 'static,
    F: Fn() -> BoxFuture<'static, Result<T, ProviderError>> + Send + 'static,
{
    enum State<T> {
        First,
        Answered(T),
        Failed,
    }
    let next = move |(state, ask): (State<T>, F)| async move {
        let last = match state {
            State::First => None,
            State::Answered(answer) => Some(answer),
            State::Failed => return None,
        };
        loop {
            if last.is_some() {
                sleep(interval).await;
            }
            match ask().await {
                Ok(answer) if last.as_ref() == Some(&answer) => {}
                Ok(answer) => return Some((Ok(answer.clone()), (State::Answered(answer), ask))),
                Err(error) => return Some((Err(error), (State::Failed, ask))),
            }
        }
    };
    stream::unfold((State::First, ask), next).boxed()
}

impl Provider for PythonProvider {
    fn describe(&self) -> Arc<str> {
        Arc::clone(&self.description)
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        let (this, service) = (self.clone(), service.clone());
        poll(self.interval, move || {
            let (this, service) = (this.clone(), service.clone());
            async move { this.answer(&service).await }.boxed()
        })
    }

    fn watch_names(&self) -> NamesWatch {
        let this = self.clone();
        poll(self.interval, move || {
            let this = this.clone();
            async move { this.names().await }.boxed()
        })
    }

    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        if self.registers {
            return Ok(self);
        }
        let message = "services can't be registered with this provider; \
             give its class the methods register_service and deregister_service";
        Err(self.error(ProviderErrorKind::Unsupported, message))
    }
}

impl Registry for PythonProvider {
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        _: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        let service = registration.instance().service().to_string();
        let data = service_data(registration);
        async move {
            self.call::<bool>("_register", vec![service, data]).await?;
            Ok(())
        }
        .boxed()
    }

    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
        async move {
            self.call::<bool>("_deregister", vec![id.to_string()])
                .await?;
            Ok(())
        }
        .boxed()
    }

    /// The object has no method for heartbeats, so the registration is assumed to exist.
    fn heartbeat<'a>(
        &'a self,
        _: &'a Registration,
        _: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
        std::future::ready(Ok(HeartbeatResponse::Known)).boxed()
    }
}

/// The second argument of `register_service`, as JSON.
fn service_data(registration: &Registration) -> String {
    let instance = registration.instance();
    let checks: Vec<_> = registration
        .checks()
        .iter()
        .map(|check| {
            let mut data = match check.kind() {
                CheckKind::Http(http) => json!({ "http": http.url(instance) }),
                CheckKind::Tcp => json!({ "tcp": instance.authority() }),
                CheckKind::Grpc { service } => json!({ "grpc": service }),
                CheckKind::Script(arguments) => json!({ "args": arguments }),
                CheckKind::Ttl(ttl) => json!({ "ttl": text(*ttl) }),
                _ => json!({}),
            };
            if let Some((interval, timeout)) = check.timing() {
                data["interval"] = text(interval).into();
                data["timeout"] = text(timeout).into();
            }
            data
        })
        .collect();
    let metadata: serde_json::Map<_, _> = instance
        .metadata()
        .map(|(key, value)| (key.to_owned(), value.into()))
        .collect();
    let mut data = json!({
        "id": instance.id().as_str(),
        "url": instance.url(),
        "address": instance.host().bare(),
        "port": instance.port(),
        "tags": instance.tags().collect::<Vec<_>>(),
        "meta": metadata,
        "version": instance.version(),
    });
    if let [check] = checks.as_slice() {
        data["check"] = check.clone();
    } else if !checks.is_empty() {
        data["checks"] = checks.into();
    }
    data.to_string()
}

fn text(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}

impl fmt::Debug for PythonProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PythonProvider")
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}
