//! Where instances come from: the provider traits, and the providers that need no network.
//!
//! A [`Provider`] answers [`watch`](Provider::watch) with a stream of *complete* answers: each holds
//! everything that is known about the service at that moment, so a lost one does no harm. A
//! [`Registry`] is a provider that services can also be registered with.
//!
//! A provider does not retry, cache or keep old answers. When an attempt fails it reports the error
//! and may end its stream. Waypost's directory restarts the watch after a backoff (see
//! [`supervision`](crate::supervision)) and serves the last known good answer meanwhile; this is the
//! only place that does so, for all providers alike.
//!
//! # Adding a provider
//! Implement [`Provider`], and hand it to `ServiceDiscoveryClient::builder` or
//! `set_discovery_provider` of the crate `waypost`. Its `examples/own_provider.rs` is a complete
//! provider. Test yours with [`conformance`](crate::conformance).

mod env;
mod fallback;
pub(crate) mod file;
mod layered;
mod memory;
mod token_file;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

pub use env::EnvProvider;
pub use fallback::FallbackProvider;
pub use file::StaticProvider;
pub use layered::{LayeredProvider, Policy};
pub use memory::MemoryProvider;
pub use token_file::TokenFile;

use crate::error::ProviderError;
use crate::model::{Health, Instance, InstanceId, ServiceName};
use crate::registration::Registration;
use crate::supervision::ProviderStatus;

/// What a provider answers about a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All instances of the service, whatever their health; none is an answer too.
    Instances(Vec<Arc<Instance>>),
    /// The provider doesn't know such a service. It goes on watching for it.
    Unknown,
}

/// A stream of answers about one service. An `Err` is one failed attempt; the stream may end after
/// it or go on. Dropping the stream ends the watch.
pub type Watch = BoxStream<'static, Result<Answer, ProviderError>>;

/// A stream of the names of all services, each item the whole list.
pub type NamesWatch = BoxStream<'static, Result<BTreeSet<ServiceName>, ProviderError>>;

/// A place that instances come from.
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// What it is and where, such as `consul at http://127.0.0.1:8500`. Errors and status carry
    /// it; it must hold no secret.
    fn describe(&self) -> Arc<str>;

    /// Watches one service. The first item comes as soon as the provider knows an answer, the
    /// following ones whenever it changes.
    fn watch(&self, service: &ServiceName) -> Watch;

    /// Watches the names of all services.
    fn watch_names(&self) -> NamesWatch;

    /// The status of each provider that this one is made of, if it is made of others.
    fn layers(&self) -> Vec<ProviderStatus> {
        Vec::new()
    }

    /// The same provider as a registry, or the reason why it is none.
    fn registry(&self) -> Result<&dyn Registry, ProviderError> {
        Err(ProviderError::unsupported(
            self.describe(),
            "this provider only looks services up; nothing can be registered with it",
        ))
    }
}

/// A provider that one can register with.
///
/// Every call is one attempt. Keeping a service registered is the job of Waypost's registrar, which
/// calls these methods again when needed.
pub trait Registry: Provider {
    /// Whether a registration can be made here at all. It is asked once, before the first attempt,
    /// and from memory.
    fn accepts(&self, _registration: &Registration) -> Result<(), ProviderError> {
        Ok(())
    }

    /// Makes the registration known, and how the instance is now. Registering the same id again
    /// replaces what was said before.
    fn register<'a>(
        &'a self,
        registration: &'a Registration,
        report: &'a Report,
    ) -> BoxFuture<'a, Result<(), ProviderError>>;

    /// Takes a registration back. An id that isn't registered is no error.
    fn deregister<'a>(&'a self, id: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>>;

    /// Tells the registry how the instance is, and learns whether the registry still knows it.
    fn heartbeat<'a>(
        &'a self,
        registration: &'a Registration,
        report: Report,
    ) -> BoxFuture<'a, Result<Heartbeat, ProviderError>>;

    /// Takes an instance out of service with a reason, or, without one, puts it back. It stays
    /// registered meanwhile. Like all else of a registration, this is one attempt.
    fn set_maintenance<'a>(
        &'a self,
        _registration: &'a Registration,
        _reason: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        let refusal = "this registry has no maintenance mode; deregister the instance instead";
        Box::pin(std::future::ready(Err(ProviderError::unsupported(
            self.describe(),
            refusal,
        ))))
    }

    /// This machine's address as the registry sees it, if that can be told.
    fn local_address(&self) -> Option<IpAddr> {
        None
    }
}

/// What an instance says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How it is.
    pub health: Health,
    /// The same in words.
    pub output: String,
}

impl Report {
    /// How an instance is, in a word and in a text.
    pub fn new(health: Health, output: impl Into<String>) -> Self {
        Self {
            health,
            output: output.into(),
        }
    }

    /// All that it can say is that it lives.
    pub fn alive() -> Self {
        Self::new(Health::Unchecked, "alive")
    }
}

/// What a registry says to a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// It knows the instance.
    Known,
    /// It doesn't: it was wiped, replaced or restarted. Register again.
    Forgotten,
}
