//! Shuts a server down without losing requests: deregister, wait until clients have noticed, drain, stop.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use waypost_core::health::HealthChecks;
use waypost_core::provider::Provider;
use waypost_core::{Check, Error, Host, Invalid, ServiceRegistration};

use super::shutdown::shutdown_signal;
use crate::global::get_discovery_provider;
use crate::registrar::Registrar;

/// How a server registers and shuts down.
pub(super) struct Lifecycle {
    pub(super) health: Option<HealthChecks>,
    pub(super) registration: Option<ServiceRegistration>,
    pub(super) provider: Option<Arc<dyn Provider>>,
    pub(super) shutdown: Option<BoxFuture<'static, ()>>,
    pub(super) propagation: Duration,
    pub(super) drain: Duration,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            health: None,
            registration: None,
            provider: None,
            shutdown: None,
            propagation: Duration::from_millis(500),
            drain: Duration::from_secs(10),
        }
    }
}

impl Lifecycle {
    /// Registers, and starts to wait for the signal to shut down. `address` is the listener's; `check` is
    /// used if the registration has no checks.
    pub(super) fn start(self, address: SocketAddr, check: Check) -> Result<Running, ServeError> {
        let registrar = match self.registration {
            None => None,
            Some(mut registration) => {
                if let Some(health) = &self.health {
                    registration = registration.health(health.clone());
                }
                let registration = complete(registration, address, check);
                let provider = self.provider.map_or_else(get_discovery_provider, Ok)?;
                Registrar::start_if_supported(provider, registration)?
            }
        };
        let (stop, _) = watch::channel(());
        Ok(Running {
            health: self.health,
            registrar,
            shutdown: (self.shutdown).unwrap_or_else(|| Box::pin(shutdown_signal())),
            propagation: self.propagation,
            drain: self.drain,
            stop,
        })
    }
}

/// A server that is registered.
pub(super) struct Running {
    health: Option<HealthChecks>,
    registrar: Option<Registrar>,
    shutdown: BoxFuture<'static, ()>,
    propagation: Duration,
    drain: Duration,
    stop: watch::Sender<()>,
}

impl Running {
    /// A channel that is closed when the server should accept no more connections.
    pub(super) fn stopped(&self) -> watch::Receiver<()> {
        self.stop.subscribe()
    }

    /// Runs the server until it ends by itself, or until the signal to shut down; then shuts it down as
    /// described at [`axum::Serve`](super::axum::Serve). Returns what the server returned, or `None` if it
    /// was aborted after the drain time. The server is polled here, so that dropping this future ends it.
    pub(super) async fn run<T>(self, server: impl Future<Output = T>) -> Option<T> {
        let mut server = pin!(server);
        tokio::select! {
            ended = &mut server => return Some(ended),
            () = self.shutdown => {}
        }
        let deregister = async {
            if let Some(health) = &self.health {
                health.set_ready(false);
            }
            let Some(registrar) = self.registrar else {
                return;
            };
            if registrar.deregister().await.is_ok() {
                sleep(self.propagation).await;
            }
        };
        tokio::select! {
            ended = &mut server => return Some(ended),
            () = deregister => {}
        }
        drop(self.stop);
        let ended = timeout(self.drain, server).await;
        if ended.is_err() {
            tracing::warn!(limit = ?self.drain, "drain timeout, aborting requests in flight");
        }
        ended.ok()
    }
}

/// Fills in the values that are missing from the registration.
fn complete(
    mut registration: ServiceRegistration,
    address: SocketAddr,
    check: Check,
) -> ServiceRegistration {
    registration = registration.port_if_unset(address.port());
    if !registration.has_host() && !address.ip().is_unspecified() {
        registration = registration.host(Host::Ip(address.ip()));
    }
    if registration.has_checks() {
        registration
    } else {
        registration.check(check)
    }
}

/// Why an application could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The registration or the settings are invalid.
    #[error(transparent)]
    Discovery(#[from] Error),
    /// The listener failed.
    #[error("the listener failed: {0}")]
    Io(#[from] std::io::Error),
    /// tonic's server failed.
    #[cfg(feature = "tonic-server")]
    #[error("the server failed: {0}")]
    Tonic(#[from] tonic::transport::Error),
}

impl From<Invalid> for ServeError {
    fn from(invalid: Invalid) -> Self {
        Self::Discovery(invalid.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(port: u16) -> ServiceRegistration {
        ServiceRegistration::new("web", port).unwrap()
    }

    /// The address that is registered for a listener, and the number of checks.
    fn completed(registration: ServiceRegistration, listener: &str) -> (String, usize) {
        let registration = complete(registration, listener.parse().unwrap(), Check::tcp());
        let registration = registration.resolve(Some([10, 0, 0, 9].into())).unwrap();
        let instance = registration.instance();
        let address = format!("{}:{}", instance.host(), instance.port());
        (address, registration.checks().len())
    }

    #[test]
    fn a_registration_gets_what_is_missing_from_the_listener() {
        let host =
            |registration: ServiceRegistration| registration.host("web.example".parse().unwrap());
        let checked = registration(0)
            .check(Check::http("/a"))
            .check(Check::http("/b"));
        for (registration, listener, address, checks) in [
            (registration(0), "10.0.0.1:8080", "10.0.0.1:8080", 1),
            (registration(80), "10.0.0.1:8080", "10.0.0.1:80", 1),
            // Clients can't connect to the unspecified address.
            (registration(0), "0.0.0.0:8080", "10.0.0.9:8080", 1),
            (registration(0), "[::]:8080", "10.0.0.9:8080", 1),
            (
                host(registration(0)),
                "10.0.0.1:8080",
                "web.example:8080",
                1,
            ),
            (checked, "10.0.0.1:8080", "10.0.0.1:8080", 2),
        ] {
            let expected = (address.to_owned(), checks);
            assert_eq!(completed(registration, listener), expected, "{listener}");
        }
    }
}
