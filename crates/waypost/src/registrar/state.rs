//! The state that a registration should have, and the one that it has.

use std::sync::Arc;

use waypost_core::ProviderError;

/// The state that the task reconciles the registry with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Desired {
    pub(super) target: Target,
    /// The reason for maintenance, if the instance should be in maintenance.
    pub(super) maintenance: Option<Arc<str>>,
    /// The number of reports that were requested.
    pub(super) reports: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Registered,
    Deregistered,
    /// Stop without a further call to the registry.
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
    /// Deregistered; `Err` if the registry could not be reached for that.
    Deregistered(Result<(), ProviderError>),
}
