use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::provider::Provider;
use waypost_core::{Error, Registration, ServiceRegistration};

use super::background::Background;
use crate::registrar::RegistrationState;

/// Keeps one instance registered until it is dropped; as [`crate::Registrar`], but dropping it
/// waits until the registry has heard of it, for at most 5 s.
pub struct Registrar {
    /// `None` once it was taken back.
    registrar: Option<crate::registrar::Registrar>,
    registration: Registration,
    background: Arc<Background>,
}

impl Registrar {
    /// Begins to register, on a thread of its own.
    ///
    /// # Errors
    /// As [`crate::Registrar::start`]; and within an async runtime.
    pub fn start(
        provider: Arc<dyn Provider>,
        registration: ServiceRegistration,
    ) -> Result<Self, Error> {
        let background = Background::start()?;
        Self::on(&background, || {
            crate::registrar::Registrar::start(provider, registration)
        })
    }

    pub(super) fn on(
        background: &Arc<Background>,
        start: impl FnOnce() -> Result<crate::registrar::Registrar, Error>,
    ) -> Result<Self, Error> {
        let registrar = background.within(start)??;
        Ok(Self::of(registrar, background))
    }

    pub(super) fn of(registrar: crate::registrar::Registrar, background: &Arc<Background>) -> Self {
        Self {
            registration: registrar.registration().clone(),
            registrar: Some(registrar),
            background: Arc::clone(background),
        }
    }

    /// What it keeps registered.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// How far it has come.
    pub fn state(&self) -> RegistrationState {
        match &self.registrar {
            Some(registrar) => registrar.state(),
            None => RegistrationState::Deregistered(Ok(())),
        }
    }

    /// Waits until the registry knows the instance, for at most so long. Says whether it does.
    ///
    /// # Errors
    /// Within an async runtime.
    pub fn registered(&self, limit: Duration) -> Result<bool, Error> {
        let Some(registrar) = &self.registrar else {
            return Ok(false);
        };
        self.background.run(async {
            let registered = tokio::time::timeout(limit, registrar.registered()).await;
            registered.is_ok()
        })
    }

    /// Takes the registration back and waits until the registry has heard of it.
    ///
    /// # Errors
    /// If the registry could not be told within 5 s.
    pub fn deregister(mut self) -> Result<(), Error> {
        self.take_back()
    }

    fn take_back(&mut self) -> Result<(), Error> {
        let Some(registrar) = self.registrar.take() else {
            return Ok(());
        };
        let outcome = self.background.finish(registrar.deregister());
        outcome.unwrap_or(Ok(()))
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        // The registrar has logged what went wrong.
        let _ = self.take_back();
    }
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registrar")
            .field(&self.registration)
            .finish()
    }
}
