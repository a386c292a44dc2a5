//! The desired and the actual state of a registration.

use std::sync::Arc;

use waypost_core::ProviderError;

/// The state that the task reconciles the registry with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) target: Target,
    /// The reason for maintenance, if the instance should be in maintenance.
    pub(super) maintenance: Option<Arc<str>>,
    /// How many times a health report was requested. Each increment triggers one.
    pub(super) reports: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Registered,
    Deregistered,
    /// The task ends without another call to the registry.
    Abandoned,
}

/// The state of a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not registered yet, with the error of the latest attempt if one has failed.
    Pending(Option<ProviderError>),
    /// The registry has the instance.
    Registered,
    /// The instance was registered, and now the registry fails. Heartbeats are retried.
    Lost(ProviderError),
    /// Deregistered, or why that failed.
    Deregistered(Result<(), ProviderError>),
}
