//! The global functions for programs without async.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceName, ServiceRegistration};

use super::background::Background;

/// The background thread of these functions, which runs until the program ends.
fn background() -> Result<&'static Background, Error> {
    static SHARED: OnceLock<Arc<Background>> = OnceLock::new();
    if let Some(shared) = SHARED.get() {
        return Ok(shared);
    }
    let new = Background::start()?;
    Ok(SHARED.get_or_init(|| new))
}

/// Like [`crate::get_service_url`].
///
/// ```no_run
/// # fn main() -> Result<(), waypost::Error> {
/// let auth_url = waypost::blocking::get_service_url("auth", Some("http://localhost:5001"))?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The same; and [`Error::WithinRuntime`] within an async runtime.
pub fn get_service_url<N>(service: N, default: Option<&str>) -> Result<String, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    background()?.block_on(crate::global::get_service_url(service, default))?
}

/// Like [`crate::get_service`].
///
/// # Errors
/// The same; and [`Error::WithinRuntime`] within an async runtime.
pub fn get_service<N>(service: N, default: Option<&str>) -> Result<Arc<Instance>, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    background()?.block_on(crate::global::get_service(service, default))?
}

/// Like [`crate::get_services`].
///
/// # Errors
/// The same; and [`Error::WithinRuntime`] within an async runtime.
pub fn get_services() -> Result<BTreeMap<ServiceName, Arc<Instance>>, Error> {
    background()?.block_on(crate::global::get_services())?
}

/// Like [`crate::register_service`]. Call [`deregister_service`] before the program ends, or use a
/// [`Registrar`](super::Registrar), which deregisters when it is dropped.
///
/// # Errors
/// The same; and [`Error::WithinRuntime`] within an async runtime.
pub fn register_service(registration: ServiceRegistration) -> Result<InstanceId, Error> {
    background()?.block_on(crate::global::register_service(registration))?
}

/// Like [`crate::deregister_service`].
///
/// # Errors
/// The same; and [`Error::WithinRuntime`] within an async runtime.
pub fn deregister_service<N>(service: N) -> Result<usize, Error>
where
    N: TryInto<ServiceName, Error = Invalid>,
{
    background()?.block_on(crate::global::deregister_service(service))?
}

/// Like [`crate::deregister_all_services`]. Call it before the program ends: the background thread of
/// these functions runs until the process exits, and doesn't deregister the services then.
///
/// # Errors
/// The same; and [`Error::WithinRuntime`] within an async runtime.
pub fn deregister_all_services() -> Result<usize, Error> {
    background()?.block_on(crate::global::deregister_all_services())?
}
