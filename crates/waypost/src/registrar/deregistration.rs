//! Deregisters the instance when its registrar ends, or when the Tokio runtime shuts down.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use waypost_core::provider::Provider;
use waypost_core::supervision::Backoff;
use waypost_core::{ProviderError, Registration};

use super::state::{Desired, RegistrationState, Target};
use crate::telemetry::ServiceMetrics;

/// How long deregistration is retried. After that it is left to the registry's checks.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// The same while the runtime shuts down, since the shutdown waits for it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of attempts while the runtime shuts down. Instances are deregistered one after the other then, so
/// retrying each until the timeout would add up. The second attempt is for a connection that was lost.
pub(super) const SHUTDOWN_ATTEMPTS: usize = 2;

/// Deregisters the instance. Dropping it does so if the runtime shuts down before the registrar ends, since
/// no further heartbeats are sent then.
pub(super) struct DeregisterOnDrop {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) registration: Registration,
    pub(super) state: watch::Sender<RegistrationState>,
    pub(super) desired: watch::Receiver<Desired>,
    pub(super) metrics: ServiceMetrics,
}

impl DeregisterOnDrop {
    /// Deregisters the instance, retrying for some time, and publishes the result.
    pub(super) async fn deregister(&self) {
        let attempts = usize::MAX;
        let deregistration = deregister(
            &*self.provider,
            &self.registration,
            attempts,
            DEREGISTER_TIMEOUT,
        );
        self.deregistered(deregistration.await);
    }

    /// Logs the result, and publishes it as the state.
    fn deregistered(&self, result: Result<(), ProviderError>) {
        let id = self.registration.instance().id();
        let never_registered = matches!(&*self.state.borrow(), RegistrationState::Pending(Some(_)));
        match &result {
            _ if never_registered => tracing::debug!(%id, ?result, "stopped before registering"),
            Ok(()) => tracing::info!(%id, "deregistered"),
            Err(error) => tracing::warn!(
                %id,
                %error,
                "could not deregister, leaving it to the registry's health checks"
            ),
        }
        self.metrics.registered(false);
        let deregistered = RegistrationState::Deregistered(result);
        self.state.send_replace(deregistered);
    }
}

impl Drop for DeregisterOnDrop {
    fn drop(&mut self) {
        // If the registry is failing, waiting for it would only delay the end of the program.
        let may_be_registered = matches!(
            &*self.state.borrow(),
            RegistrationState::Registered | RegistrationState::Pending(None)
        );
        if !may_be_registered || self.desired.borrow().target == Target::Abandoned {
            return;
        }
        // The runtime is ending, so this needs another runtime on another thread.
        let (provider, registration) = (Arc::clone(&self.provider), self.registration.clone());
        let attempt = move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| {
                ProviderError::unreachable(provider.describe(), "no runtime").with_source(error)
            })?;
            runtime.block_on(deregister(
                &*provider,
                &registration,
                SHUTDOWN_ATTEMPTS,
                SHUTDOWN_TIMEOUT,
            ))
        };
        let name = "waypost-deregister".to_owned();
        let result = thread::Builder::new().name(name).spawn(attempt);
        let result = result.map(JoinHandle::join);
        self.deregistered(match result {
            Ok(Ok(result)) => result,
            _ => Err(ProviderError::unreachable(
                self.provider.describe(),
                "the last attempt to deregister failed",
            )),
        });
    }
}

async fn deregister(
    provider: &dyn Provider,
    registration: &Registration,
    attempts: usize,
    limit: Duration,
) -> Result<(), ProviderError> {
    let registry = provider.registry()?;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut last = None;
    let deregistered = async {
        for attempt in 1.. {
            match registry.deregister(registration.instance().id()).await {
                Ok(()) => return true,
                Err(error) => last = Some(error),
            }
            if attempt == attempts {
                break;
            }
            sleep(backoff.next_delay()).await;
        }
        false
    };
    if let Ok(true) = timeout(limit, deregistered).await {
        return Ok(());
    }
    Err(last.unwrap_or_else(|| {
        ProviderError::unreachable(
            provider.describe(),
            format!("no response to the deregistration within {limit:?}"),
        )
    }))
}
