//! A registrar for programs without async.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::provider::Provider;
use waypost_core::{Error, Registration, ServiceRegistration};

use super::background::Background;
use crate::registrar::{Registrar as AsyncRegistrar, RegistrationState};

/// Keeps one instance registered until it is dropped, like [`crate::Registrar`], except that dropping
/// it waits until the registry has confirmed the deregistration, for at most 5 s.
pub struct Registrar {
    /// `None` after deregistration.
    registrar: Option<AsyncRegistrar>,
    registration: Registration,
    background: Arc<Background>,
}

impl Registrar {
    /// Starts to register, on a new background thread.
    ///
    /// # Errors
    /// The same as for [`crate::Registrar::start`]; and [`Error::WithinRuntime`] within an async runtime.
    pub fn start(
        provider: Arc<dyn Provider>,
        registration: ServiceRegistration,
    ) -> Result<Self, Error> {
        let background = Background::start()?;
        let registrar = background.enter(|| AsyncRegistrar::start(provider, registration))??;
        Ok(Self::new(registrar, background))
    }

    /// Wraps a registrar that runs on this background thread.
    pub(super) fn new(registrar: AsyncRegistrar, background: Arc<Background>) -> Self {
        Self {
            registration: registrar.registration().clone(),
            registrar: Some(registrar),
            background,
        }
    }

    /// The registration.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The current state.
    pub fn state(&self) -> RegistrationState {
        match &self.registrar {
            Some(registrar) => registrar.state(),
            None => RegistrationState::Deregistered(Ok(())),
        }
    }

    /// Waits until the instance is registered, for at most this long. Returns whether it is.
    ///
    /// # Errors
    /// [`Error::WithinRuntime`] within an async runtime.
    pub fn registered(&self, limit: Duration) -> Result<bool, Error> {
        let Some(registrar) = &self.registrar else {
            return Ok(false);
        };
        self.background.block_on(async {
            let registered = tokio::time::timeout(limit, registrar.registered()).await;
            registered.is_ok()
        })
    }

    /// Deregisters the instance, and waits until the registry has confirmed it.
    ///
    /// # Errors
    /// If the registry could not be reached within 5 s.
    pub fn deregister(mut self) -> Result<(), Error> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), Error> {
        let Some(registrar) = self.registrar.take() else {
            return Ok(());
        };
        let result = self
            .background
            .run_to_end(async move { registrar.deregister().await });
        result.unwrap_or(Ok(()))
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        // The async registrar has logged the error.
        let _ = self.stop();
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registrar")
            .field(&self.registration)
            .finish()
    }
}
