//! `Client`: looks services up and picks instances.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use waypost::balance::{Explanation, Key};
use waypost::integration::retry::lease_for;
use waypost::{
    Environment, Error, Instance as RustInstance, InstanceId, Lease as RustLease,
    Registrar as RustRegistrar, ServiceAddress, ServiceDiscoveryClient, ServiceName,
};

use crate::health::HealthChecks;
use crate::instance::Instance;
use crate::lease::Lease;
use crate::provider::PythonProvider;
use crate::registration::{self, Registrar};
use crate::strategy::StrategyChoice;
use crate::{errors, log, runtime};

/// Looks services up and picks instances. After a fork, the client is built again on first use, because
/// its threads are in the parent process.
#[pyclass(frozen)]
pub(crate) struct Client {
    /// Variables that take precedence over those of the process.
    variables: Vec<(String, String)>,
    provider: Option<Py<PyAny>>,
    state: Mutex<State>,
}

struct State {
    generation: u64,
    client: Option<ServiceDiscoveryClient>,
    strategy: Option<Arc<StrategyChoice>>,
}

impl Drop for State {
    fn drop(&mut self) {
        if self.generation != runtime::generation() {
            // Dropping it would abort tasks of the parent's runtime.
            std::mem::forget(self.client.take());
        }
    }
}

impl Client {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, py: Python<'_>) -> PyResult<ServiceDiscoveryClient> {
        let generation = runtime::generation();
        let strategy = {
            let state = self.state();
            match &state.client {
                Some(client) if state.generation == generation => return Ok(client.clone()),
                _ => state.strategy.clone(),
            }
        };
        let client = self.build(py, strategy.as_deref())?;
        let mut state = self.state();
        match &state.client {
            // Another thread has built it first.
            Some(client) if state.generation == generation => return Ok(client.clone()),
            _ => {}
        }
        // Dropping it would abort tasks of the parent's runtime.
        std::mem::forget(state.client.take());
        state.generation = generation;
        state.client = Some(client.clone());
        Ok(client)
    }

    fn build(
        &self,
        py: Python<'_>,
        strategy: Option<&StrategyChoice>,
    ) -> PyResult<ServiceDiscoveryClient> {
        log::read_level(py)?;
        let variables = py.import("os")?.getattr("environ")?.call_method0("copy")?;
        let variables: BTreeMap<String, String> = variables.extract()?;
        let own = self.variables.iter().cloned();
        let environment = Environment::from_iter(variables.into_iter().chain(own));
        let provider = self.provider.as_ref();
        let provider = provider
            .map(|object| PythonProvider::new(object.bind(py)))
            .transpose()?;
        let built = runtime::enter(py, move || {
            let builder = ServiceDiscoveryClient::builder();
            let client = match provider {
                Some(provider) => builder.provider(provider).build(),
                None => builder.environment(environment).build(),
            }?;
            if let Some(strategy) = strategy {
                strategy.apply(&client)?;
            }
            Ok(client)
        })?;
        built.map_err(|error| errors::to_exception(py, &error))
    }

    fn use_strategy(&self, py: Python<'_>, strategy: StrategyChoice) -> PyResult<()> {
        let client = self.get(py)?;
        let strategy = Arc::new(strategy);
        let applied = runtime::enter(py, || strategy.apply(&client))?;
        applied.map_err(|error| errors::to_exception(py, &error))?;
        self.state().strategy = Some(strategy);
        Ok(())
    }
}

/// Waits for a future that is created with the client.
fn wait<T, F>(py: Python<'_>, future: F) -> PyResult<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    runtime::wait(py, future)?.map_err(|error| errors::to_exception(py, &error))
}

fn into_asyncio<'py, T, F>(
    py: Python<'py>,
    future: F,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Error>> + Send + 'static,
{
    runtime::into_asyncio(py, future, |py, result| match result {
        Ok(value) => convert(py, value),
        Err(error) => Err(errors::to_exception(py, &error)),
    })
}

#[pymethods]
impl Client {
    #[new]
    #[pyo3(signature = (variables, provider=None))]
    fn new(
        py: Python<'_>,
        variables: BTreeMap<String, String>,
        provider: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let client = Self {
            variables: variables.into_iter().collect(),
            provider,
            state: Mutex::new(State {
                generation: runtime::generation(),
                client: None,
                strategy: None,
            }),
        };
        // Reports invalid settings now.
        client.get(py)?;
        Ok(client)
    }

    /// Another client of the same provider, with its own cache and strategy.
    fn another(&self, py: Python<'_>) -> PyResult<Self> {
        let provider = self.provider.as_ref().map(|object| object.clone_ref(py));
        Self::new(py, self.variables.iter().cloned().collect(), provider)
    }

    /// The provider and its address.
    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        Ok(self.get(py)?.provider().describe().to_string())
    }

    /// The URL of a path on an instance that the balancer picks, but only if that needs no waiting.
    fn try_service_url(
        &self,
        py: Python<'_>,
        service: &str,
        path: &str,
    ) -> PyResult<Option<String>> {
        let pick = self.get(py)?.try_pick(service);
        Ok(pick.map(|pick| pick.url_for(path)))
    }

    fn service_url(&self, py: Python<'_>, service: &str, path: &str) -> PyResult<String> {
        let client = self.get(py)?;
        if let Some(pick) = client.try_pick(service) {
            return Ok(pick.url_for(path));
        }
        let (service, path) = (service.to_owned(), path.to_owned());
        wait(py, async move { client.service_url(service, &path).await })
    }

    fn service_url_async<'py>(
        &self,
        py: Python<'py>,
        service: String,
        path: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let url = async move { client.service_url(service, &path).await };
        into_asyncio(py, url, |py, url| {
            Ok(url.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// An instance that the balancer picks, for information.
    fn instance(&self, py: Python<'_>, service: &str) -> PyResult<Instance> {
        let client = self.get(py)?;
        if let Some(pick) = client.try_pick(service) {
            return Ok(Instance::new(Arc::clone(pick.endpoint().instance())));
        }
        let service = service.to_owned();
        wait(py, async move { picked(&client, service).await }).map(Instance::new)
    }

    fn instance_async<'py>(&self, py: Python<'py>, service: String) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let instance = async move { picked(&client, service).await };
        into_asyncio(py, instance, to_object)
    }

    /// The instances of a service that accept new requests.
    fn discover<'py>(&self, py: Python<'py>, service: String) -> PyResult<Bound<'py, PyList>> {
        let client = self.get(py)?;
        let instances = wait(py, async move { client.discover_service(service).await })?;
        PyList::new(py, instances.into_iter().map(Instance::new))
    }

    fn discover_async<'py>(&self, py: Python<'py>, service: String) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let instances = async move { client.discover_service(service).await };
        into_asyncio(py, instances, |py, instances| {
            let list = PyList::new(py, instances.into_iter().map(Instance::new))?;
            Ok(list.into_any().unbind())
        })
    }

    /// All services that have a usable instance, each with one that the balancer picks.
    fn services<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let client = self.get(py)?;
        let services = wait(py, async move { services(&client).await })?;
        services_to_dict(py, services)
    }

    fn services_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let services = async move { services(&client).await };
        into_asyncio(py, services, |py, services| {
            Ok(services_to_dict(py, services)?.into_any().unbind())
        })
    }

    /// The names of all services.
    fn names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let client = self.get(py)?;
        wait(py, async move { names(&client).await })
    }

    fn names_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let names = async move { names(&client).await };
        into_asyncio(py, names, |py, names| Ok(names.into_pyobject(py)?.unbind()))
    }

    /// A lease on an instance that the balancer picks.
    #[pyo3(signature = (service, key=None))]
    fn pick(&self, py: Python<'_>, service: &str, key: Option<&str>) -> PyResult<Py<Lease>> {
        let client = self.get(py)?;
        if key.is_none()
            && let Some(pick) = client.try_pick(service)
        {
            return Lease::create(py, pick.lease());
        }
        let (service, key) = (service.to_owned(), key.map(Key::new));
        let lease = wait(py, async move { leased(&client, service, key).await })?;
        Lease::create(py, lease)
    }

    #[pyo3(signature = (service, key=None))]
    fn pick_async<'py>(
        &self,
        py: Python<'py>,
        service: String,
        key: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let key = key.map(Key::new);
        let lease = async move { leased(&client, service, key).await };
        into_asyncio(py, lease, |py, lease| {
            Ok(Lease::create(py, lease)?.into_any())
        })
    }

    /// A lease for a request to an address such as `http://auth/users`, and the URL to call.
    /// Instances whose ids are in `tried` are avoided.
    fn lease_for(
        &self,
        py: Python<'_>,
        address: &str,
        tried: Vec<String>,
    ) -> PyResult<(Py<Lease>, String)> {
        let client = self.get(py)?;
        let address = parse_address(py, address)?;
        if tried.is_empty()
            && let Some(pick) = client.try_pick(address.service().as_str())
            && address.rank(&pick) == Some(0)
            && let Some(url) = address.url_at(&pick)
        {
            return Ok((Lease::create(py, pick.lease())?, url));
        }
        let tried = to_ids(tried);
        let (lease, url) = wait(
            py,
            async move { lease_for(&client, &address, &tried).await },
        )?;
        Ok((Lease::create(py, lease)?, url))
    }

    fn lease_for_async<'py>(
        &self,
        py: Python<'py>,
        address: &str,
        tried: Vec<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let address = parse_address(py, address)?;
        let tried = to_ids(tried);
        let lease = async move { lease_for(&client, &address, &tried).await };
        into_asyncio(py, lease, |py, (lease, url)| {
            let pair = (Lease::create(py, lease)?, url);
            Ok(pair.into_pyobject(py)?.into_any().unbind())
        })
    }

    /// Like `lease_for`, but only if that needs no waiting.
    fn try_lease_for(
        &self,
        py: Python<'_>,
        address: &str,
    ) -> PyResult<Option<(Py<Lease>, String)>> {
        let client = self.get(py)?;
        let address = parse_address(py, address)?;
        let Some(pick) = client.try_pick(address.service().as_str()) else {
            return Ok(None);
        };
        match address.url_at(&pick) {
            Some(url) if address.rank(&pick) == Some(0) => {
                Ok(Some((Lease::create(py, pick.lease())?, url)))
            }
            _ => Ok(None),
        }
    }

    /// Waits until a service has an instance that accepts requests, for at most this many seconds.
    fn wait_for(&self, py: Python<'_>, service: String, limit: f64) -> PyResult<()> {
        let client = self.get(py)?;
        wait(py, async move { wait_for(&client, &service, limit).await })
    }

    fn wait_for_async<'py>(
        &self,
        py: Python<'py>,
        service: String,
        limit: f64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let found = async move { wait_for(&client, &service, limit).await };
        into_asyncio(py, found, |py, ()| Ok(py.None()))
    }

    /// Whether each instance is picked, and why, in JSON.
    fn explain(&self, py: Python<'_>, service: String) -> PyResult<String> {
        let client = self.get(py)?;
        let explanation = wait(py, async move { client.explain(service).await })?;
        to_json(&explanation)
    }

    fn explain_async<'py>(&self, py: Python<'py>, service: String) -> PyResult<Bound<'py, PyAny>> {
        let client = self.get(py)?;
        let explanation = async move { client.explain(service).await };
        into_asyncio(py, explanation, |py, explanation| {
            Ok(to_json(&explanation)?
                .into_pyobject(py)?
                .into_any()
                .unbind())
        })
    }

    fn use_strategy_named(&self, py: Python<'_>, name: String) -> PyResult<()> {
        self.use_strategy(py, StrategyChoice::Named(name))
    }

    fn use_weights_of(&self, py: Python<'_>, function: Py<PyAny>) -> PyResult<()> {
        self.use_strategy(py, StrategyChoice::WeightedBy(Arc::new(function)))
    }

    fn use_consistent_hash(&self, py: Python<'_>, bound: f64) -> PyResult<()> {
        self.use_strategy(py, StrategyChoice::ConsistentHash(bound))
    }

    /// Starts to register. `None` if the provider can't register services.
    #[pyo3(signature = (service, data, health=None))]
    fn register(
        &self,
        py: Python<'_>,
        service: &str,
        data: &str,
        health: Option<&HealthChecks>,
    ) -> PyResult<Option<Registrar>> {
        let client = self.get(py)?;
        let registration = registration::parse(service, data, health.map(HealthChecks::get));
        let registration = registration.map_err(|error| errors::to_exception(py, &error))?;
        let provider = Arc::clone(client.provider());
        let registrar = runtime::enter(py, || {
            RustRegistrar::start_if_supported(provider, registration)
        })?;
        let registrar = registrar.map_err(|error| errors::to_exception(py, &error))?;
        Ok(registrar.map(Registrar::new))
    }
}

fn to_object(py: Python<'_>, instance: Arc<RustInstance>) -> PyResult<Py<PyAny>> {
    Ok(Py::new(py, Instance::new(instance))?.into_any())
}

fn services_to_dict(
    py: Python<'_>,
    services: BTreeMap<ServiceName, Arc<RustInstance>>,
) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    for (name, instance) in services {
        dict.set_item(name.as_str(), Instance::new(instance))?;
    }
    Ok(dict)
}

fn to_json(explanation: &Explanation) -> PyResult<String> {
    serde_json::to_string(explanation)
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))
}

fn to_ids(tried: Vec<String>) -> Vec<InstanceId> {
    tried.into_iter().map(InstanceId::from).collect()
}

fn parse_address(py: Python<'_>, address: &str) -> PyResult<ServiceAddress> {
    address.parse().map_err(|error| errors::invalid(py, error))
}

// A pick can't be held across an await in a task that moves between threads, so these functions use it
// up after the last await.

async fn picked(
    client: &ServiceDiscoveryClient,
    service: String,
) -> Result<Arc<RustInstance>, Error> {
    let pick = client.pick(service).await?;
    Ok(Arc::clone(pick.endpoint().instance()))
}

async fn leased(
    client: &ServiceDiscoveryClient,
    service: String,
    key: Option<Key>,
) -> Result<RustLease, Error> {
    match key {
        Some(key) => Ok(client.pick_for(service, key).await?.lease()),
        None => Ok(client.pick(service).await?.lease()),
    }
}

async fn services(
    client: &ServiceDiscoveryClient,
) -> Result<BTreeMap<ServiceName, Arc<RustInstance>>, Error> {
    let catalog = client.services().await?;
    let lookups = catalog.names().iter().map(async |name| {
        let instance = picked(client, name.to_string()).await.ok()?;
        Some((name.clone(), instance))
    });
    Ok(join_all(lookups).await.into_iter().flatten().collect())
}

async fn names(client: &ServiceDiscoveryClient) -> Result<Vec<String>, Error> {
    let catalog = client.services().await?;
    Ok(catalog.names().iter().map(ToString::to_string).collect())
}

async fn wait_for(client: &ServiceDiscoveryClient, service: &str, limit: f64) -> Result<(), Error> {
    let limit = std::time::Duration::try_from_secs_f64(limit).unwrap_or(std::time::Duration::MAX);
    if let Ok(found) = tokio::time::timeout(limit, client.wait_for(service)).await {
        return found.map(|_| ());
    }
    let service = ServiceName::new(service)?;
    client
        .directory()
        .lookup(&service)
        .await?
        .usable()
        .map(|_| ())
}
