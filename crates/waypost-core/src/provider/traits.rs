//! [`Provider`] and [`Registry`], and the types in their signatures.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::error::ProviderError;
use crate::model::{Health, Instance, InstanceId, Invalid, ServiceName};
use crate::registration::Registration;
use crate::supervision::ProviderStatus;

/// A source of service instances.
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// The kind of provider and its address, such as `consul at http://127.0.0.1:8500`. It is part of
    /// errors and status reports, so it must not contain secrets.
    fn describe(&self) -> Arc<str>;

    /// Watches one service. The first item comes as soon as the provider has an answer, further ones
    /// whenever it changes.
    fn watch(&self, service: &ServiceName) -> Watch;

    /// Watches the names of all services.
    fn watch_names(&self) -> NamesWatch;

    /// The names in the registry's latest list that aren't valid names of services, each with the reason.
    /// [`watch_names`](Self::watch_names) ignores them. Does no I/O; empty if there are none, or if no list
    /// has been read.
    fn ignored_names(&self) -> Vec<Invalid> {
        Vec::new()
    }

    /// The status of each provider that this one combines; empty for a provider that combines none.
    fn layer_status(&self) -> Vec<ProviderStatus> {
        Vec::new()
    }

    /// The latest results of the registry's own checks of a service's instances, which show why an
    /// instance is not healthy. Makes one attempt; empty if the provider has no checks.
    fn check_results<'a>(
        &'a self,
        _service: &'a ServiceName,
    ) -> BoxFuture<'a, Result<Vec<CheckResult>, ProviderError>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// This provider as a registry.
    ///
    /// # Errors
    /// If services can't be registered with it.
    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Err(ProviderError::unsupported(
            self.describe(),
            "services can't be registered with this provider, only looked up",
        ))
    }
}

/// A provider that services can be registered with.
///
/// Every call is one attempt, and an error means that this attempt failed. Waypost's registrar keeps a
/// service registered: it calls these methods again when needed.
pub trait Registry: Provider {
    /// Whether the registration can be made here at all. Called once, before the first attempt; it
    /// must not do any I/O.
    ///
    /// # Errors
    /// If the registry doesn't support a part of the registration.
    fn accepts(&self, _registration: &Registration) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Registers an instance together with its current health. Registering the same id again
    /// replaces the earlier registration.
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        report: &'a InstanceReport,
    ) -> BoxFuture<'a, Result<(), ProviderError>>;

    /// Removes a registration. It is not an error if the id isn't registered.
    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>>;

    /// Whether an id is registered, so that a command can report that there was nothing to deregister.
    /// A registry that can't tell returns `true`.
    fn is_registered<'a>(
        &'a self,
        _id: &'a InstanceId,
    ) -> BoxFuture<'a, Result<bool, ProviderError>> {
        Box::pin(std::future::ready(Ok(true)))
    }

    /// Reports the current health of an instance, and returns whether the registry still has the
    /// instance as it was registered: service, address, port, tags, metadata and checks.
    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: InstanceReport,
    ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>>;

    /// Puts an instance into maintenance mode with a reason, or ends that mode if there is none. The
    /// instance stays registered.
    fn set_maintenance<'a>(
        &'a self,
        _registration: &'a Registration,
        _reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        Box::pin(std::future::ready(Err(ProviderError::unsupported(
            self.describe(),
            "this registry has no maintenance mode; deregister the instance instead",
        ))))
    }

    /// The address from which this machine reaches the registry, if it can be determined.
    fn local_address(&self) -> Option<IpAddr> {
        None
    }
}

/// A provider's answer about one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceAnswer {
    /// All instances of the service, whatever their health; may be empty.
    Instances(Vec<Arc<Instance>>),
    /// The provider doesn't know the service. The watch continues, and reports the service once it
    /// exists.
    Unknown,
}

/// A stream of answers about one service. An `Err` is one failed attempt; the stream may end after it
/// or continue. Dropping the stream ends the watch.
pub type Watch = BoxStream<'static, Result<ServiceAnswer, ProviderError>>;

/// A stream of the names of all services; each item is the complete set.
pub type NamesWatch = BoxStream<'static, Result<BTreeSet<ServiceName>, ProviderError>>;

/// The report of an instance when it registers and in each heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceReport {
    /// Its health; [`Health::Unchecked`] if the application has no health checks.
    pub health: Health,
    /// The details as text.
    pub output: String,
}

impl InstanceReport {
    /// A report with a health and its details.
    pub fn new(health: Health, output: impl Into<String>) -> Self {
        Self {
            health,
            output: output.into(),
        }
    }

    /// The report of an application without health checks.
    pub fn alive() -> Self {
        Self::new(Health::Unchecked, "alive")
    }
}

/// The latest result of one of the registry's checks of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckResult {
    /// The instance, by the id under which the provider lists it.
    pub instance: InstanceId,
    /// The name of the check.
    pub name: String,
    /// The health of the instance according to the check.
    pub health: Health,
    /// The output of the check, such as the response to an HTTP request; may be empty.
    pub output: String,
    /// The time since which the check has had this health, if the registry reports it.
    pub since: Option<SystemTime>,
}

impl CheckResult {
    /// A result whose start time is unknown.
    pub fn new(
        instance: InstanceId,
        name: impl Into<String>,
        health: Health,
        output: impl Into<String>,
    ) -> Self {
        Self {
            instance,
            name: name.into(),
            health,
            output: output.into(),
            since: None,
        }
    }

    /// Sets the time since which the check has had this health.
    #[must_use]
    pub fn since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }
}

/// A registry's response to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HeartbeatResponse {
    /// The instance is registered.
    Known,
    /// There is an instance with this id, but it differs from the registration: another tool or another
    /// process has changed it. It must be registered again. The text names the fields that differ.
    Changed(Arc<str>),
    /// The instance is not registered, because the registry was wiped, replaced or restarted. It must
    /// be registered again.
    Forgotten,
}
