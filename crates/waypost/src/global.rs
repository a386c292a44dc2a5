//! The module-level functions: discovery for programs that need no client of their own.
//!
//! They share one client, made on first use with the provider that the environment asks for;
//! [`set_discovery_provider`] exchanges it at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use waypost_core::provider::{FallbackProvider, Provider};
use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceName, ServiceRegistration};

use crate::client::ServiceDiscoveryClient;
use crate::registrar::Registrar;

/// What the functions of this module share. A panic elsewhere leaves it whole.
struct Global {
    client: Option<ServiceDiscoveryClient>,
    registrars: BTreeMap<InstanceId, Registrar>,
}

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

/// Exchanges the provider that the functions of this module use.
///
/// What was registered stays registered with the provider that it was registered with.
pub fn set_discovery_provider(provider: Arc<dyn Provider>) {
    global().client = Some(ServiceDiscoveryClient::new(provider));
}

/// The provider that the functions of this module use.
///
/// # Errors
/// If none was set and the environment's choice can't be made.
pub fn get_discovery_provider() -> Result<Arc<dyn Provider>, Error> {
    Ok(Arc::clone(client()?.provider()))
}

/// The URL of a service, at an instance chosen by the load balancer. Where the provider knows no
/// usable instance or can't be asked, the default, if one is given.
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
/// If there is nothing to call and no default; or if the name or the configuration is not valid,
/// which a default must not hide.
pub async fn get_service_url<N>(service: N, default: Option<&str>) -> Result<String, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    let instance = get_service(service, default).await?;
    Ok(instance.url().to_owned())
}

/// All that is known of an instance of a service, chosen by the load balancer, or an instance at
/// the default URL.
///
/// # Errors
/// As [`get_service_url`].
pub async fn get_service<N>(service: N, default: Option<&str>) -> Result<Arc<Instance>, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    let service = service.try_into()?;
    let found = client()?.pick(&service).await;
    match (found, default) {
        (Ok(pick), _) => Ok(Arc::clone(pick.endpoint().instance())),
        (Err(error @ (Error::Invalid(_) | Error::Config(_))), _) => Err(error),
        (Err(error), None) => Err(error),
        (Err(error), Some(url)) => {
            tracing::debug!(%service, %error, url, "using the default");
            Ok(Arc::new(FallbackProvider::new(url)?.instance(&service)?))
        }
    }
}

/// All services with an instance that takes work: by name, one instance each, chosen by the load
/// balancer.
///
/// # Errors
/// If the list of services isn't known. A single service that can't be looked up is left out.
pub async fn get_services() -> Result<BTreeMap<ServiceName, Arc<Instance>>, Error> {
    let client = client()?;
    let catalog = client.services().await?;
    let lookups = catalog.names().iter().map(async |name| {
        let pick = client.pick(name).await.ok()?;
        Some((name.clone(), Arc::clone(pick.endpoint().instance())))
    });
    Ok(join_all(lookups).await.into_iter().flatten().collect())
}

/// Registers a service and keeps it registered until [`deregister_service`] or the program's end.
/// Registering the same id again replaces what was said before.
///
/// Where there is nothing to register with, a line of the log says so and the program runs on: in
/// a pod, Kubernetes registers, and what has to be in its manifest stands in that line. Use
/// [`Registrar::start`] where that shall be an error.
///
/// # Errors
/// If the registration is not valid. A registry that can't be reached is tried until it can.
pub async fn register_service(registration: ServiceRegistration) -> Result<InstanceId, Error> {
    let provider = get_discovery_provider()?;
    let Some(registrar) = Registrar::start_if_supported(provider, registration.clone())? else {
        let registration = registration.resolve(None)?;
        return Ok(registration.instance().id().clone());
    };
    let id = registrar.registration().instance().id().clone();
    let earlier = global().registrars.insert(id.clone(), registrar);
    if let Some(earlier) = earlier {
        // The new registration has taken its place, so the old one must not take it back.
        earlier.abandon();
    }
    Ok(id)
}

/// Takes back what this program registered under a service's name. Says how many instances that
/// were.
///
/// # Errors
/// If a registry could not be told; its own checks will notice in time.
pub async fn deregister_service<N>(service: N) -> Result<usize, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    let service = service.try_into()?;
    let ours: Vec<Registrar> = {
        let registrars = &mut global().registrars;
        let is_ours =
            |registrar: &Registrar| *registrar.registration().instance().service() == service;
        let ids: Vec<_> = registrars
            .iter()
            .filter(|(_, registrar)| is_ours(registrar))
            .map(|(id, _)| id.clone())
            .collect();
        ids.iter().filter_map(|id| registrars.remove(id)).collect()
    };
    let count = ours.len();
    for outcome in join_all(ours.into_iter().map(Registrar::deregister)).await {
        outcome?;
    }
    Ok(count)
}
