//! Functions that share one client, for programs that don't create their own.
//!
//! The client is created on first use, with the provider that the environment chooses.
//! [`set_discovery_provider`] replaces it.

use std::collections::BTreeMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use waypost_core::provider::{FallbackProvider, Provider};
use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceName, ServiceRegistration};

use crate::client::ServiceDiscoveryClient;
use crate::registrar::Registrar;

struct Global {
    client: Option<ServiceDiscoveryClient>,
    registrars: BTreeMap<InstanceId, Registrar>,
}

/// The shared state. No code panics halfway through a change, so a poisoned lock is safe to use.
fn global() -> MutexGuard<'static, Global> {
    static GLOBAL: Mutex<Global> = Mutex::new(Global {
        client: None,
        registrars: BTreeMap::new(),
    });
    GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn client() -> Result<ServiceDiscoveryClient, Error> {
    let mut global = global();
    if let Some(client) = &global.client {
        return Ok(client.clone());
    }
    let client = ServiceDiscoveryClient::builder().build()?;
    global.client = Some(client.clone());
    Ok(client)
}

/// Replaces the provider of the global functions.
///
/// Existing registrations stay with the provider that they were made with.
pub fn set_discovery_provider(provider: Arc<dyn Provider>) {
    global().client = Some(ServiceDiscoveryClient::new(provider));
}

/// The provider of the global functions.
///
/// # Errors
/// If none was set and the settings in the environment are invalid.
pub fn get_discovery_provider() -> Result<Arc<dyn Provider>, Error> {
    Ok(Arc::clone(client()?.provider()))
}

/// The URL of an instance of a service, picked by the load balancer. If there is no usable instance or
/// the provider fails, returns the default if one is given.
///
/// ```no_run
/// # async fn example() -> Result<(), waypost::Error> {
/// let auth_url = waypost::get_service_url("auth", Some("http://localhost:5001")).await?;
/// let users = format!("{auth_url}/users");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If there is no usable instance and no default. If the name or the configuration is invalid, even
/// with a default.
pub async fn get_service_url<N>(service: N, default: Option<&str>) -> Result<String, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    let instance = get_service(service, default).await?;
    Ok(instance.url().to_owned())
}

/// Like [`get_service_url`], but returns the whole instance; with the default, an instance at that URL.
///
/// # Errors
/// The same as for [`get_service_url`].
pub async fn get_service<N>(service: N, default: Option<&str>) -> Result<Arc<Instance>, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    let service = service.try_into()?;
    match (client()?.pick(&service).await, default) {
        (Ok(pick), _) => Ok(Arc::clone(pick.endpoint().instance())),
        (Err(error @ (Error::Invalid(_) | Error::Config(_))), _) | (Err(error), None) => Err(error),
        (Err(error), Some(url)) => {
            tracing::debug!(%service, %error, url, "service not found, using the default URL");
            Ok(Arc::new(FallbackProvider::new(url)?.instance(&service)?))
        }
    }
}

/// All services that have a usable instance, by name, each with an instance picked by the load
/// balancer.
///
/// # Errors
/// If the list of services can't be read. A service whose look-up fails is left out.
pub async fn get_services() -> Result<BTreeMap<ServiceName, Arc<Instance>>, Error> {
    let client = client()?;
    let catalog = client.services().await?;
    let lookups = catalog.names().iter().map(async |name| {
        let pick = client.pick(name).await.ok()?;
        Some((name.clone(), Arc::clone(pick.endpoint().instance())))
    });
    Ok(join_all(lookups).await.into_iter().flatten().collect())
}

/// Registers a service and keeps it registered until [`deregister_service`] or
/// [`deregister_all_services`] is called, or the runtime ends; see [`Registrar`]. Registering the same
/// id again replaces the earlier registration.
///
/// If the provider can't register services, this is logged and the function succeeds. In a pod, for
/// example, Kubernetes does the registration; the log line says what the pod's manifest needs. Use
/// [`Registrar::start`] to get an error instead.
///
/// # Errors
/// If the registration is invalid. An unreachable registry is not an error: registration is retried.
pub async fn register_service(registration: ServiceRegistration) -> Result<InstanceId, Error> {
    let provider = get_discovery_provider()?;
    let Some(registrar) = Registrar::start_if_supported(provider, registration.clone())? else {
        let registration = registration.resolve(None)?;
        return Ok(registration.instance().id().clone());
    };
    let id = registrar.registration().instance().id().clone();
    let earlier = global().registrars.insert(id.clone(), registrar);
    if let Some(earlier) = earlier {
        // It has the same id, so deregistering it would remove the new registration.
        earlier.abandon();
    }
    Ok(id)
}

/// Deregisters all instances that [`register_service`] registered under this name, and returns how
/// many there were.
///
/// # Errors
/// If a registry could not be reached within 5 s. Its health checks then remove the instance.
pub async fn deregister_service<N>(service: N) -> Result<usize, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    let service = service.try_into()?;
    let removed: BTreeMap<InstanceId, Registrar> = {
        let registrars = &mut global().registrars;
        let of_service = |(_, registrar): &(InstanceId, Registrar)| {
            *registrar.registration().instance().service() == service
        };
        let (removed, kept) = mem::take(registrars).into_iter().partition(of_service);
        *registrars = kept;
        removed
    };
    deregister_each(removed).await
}

/// Deregisters all instances that [`register_service`] registered, and returns how many there were.
/// Call it at the end of a program.
///
/// # Errors
/// The same as for [`deregister_service`].
pub async fn deregister_all_services() -> Result<usize, Error> {
    let all = mem::take(&mut global().registrars);
    deregister_each(all).await
}

async fn deregister_each(registrars: BTreeMap<InstanceId, Registrar>) -> Result<usize, Error> {
    for result in join_all(registrars.values().map(Registrar::deregister)).await {
        result?;
    }
    Ok(registrars.len())
}
