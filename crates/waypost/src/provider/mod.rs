//! Where instances come from: one room per provider, behind one trait.
//!
//! A [`Provider`] answers [`watch`](Provider::watch) with a stream of *whole* answers: each says
//! all there is to say about a service at that moment, so a lost one does no harm. A
//! [`Registry`] is a provider that one can also register with.
//!
//! A provider does not retry, cache or keep old answers. When an attempt fails it says so and may
//! end its stream; the [`Directory`](crate::Directory) starts it again after a backoff, keeps the
//! last known good answer meanwhile, and is the one place where that is done.
//!
//! # Adding a provider
//! Write one file that implements [`Provider`]; then either hand it to
//! [`ServiceDiscoveryClient::builder`](crate::ServiceDiscoveryClient::builder) or
//! [`set_discovery_provider`](crate::set_discovery_provider), or, inside this crate, name it in
//! the table of [`Settings`](crate::Settings). `examples/own_provider.rs` is a whole one.

#[cfg(feature = "consul")]
pub mod consul;
mod env;
mod fallback;
pub(crate) mod file;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod layered;
mod memory;
#[cfg(any(feature = "consul", feature = "kubernetes"))]
mod token_file;

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use futures_util::{future::BoxFuture, stream::BoxStream};

pub use env::EnvProvider;
#[cfg(feature = "consul")]
pub(crate) use env::parse_port;
pub use fallback::FallbackProvider;
pub use file::StaticProvider;
pub use layered::{LayeredProvider, Policy};
pub use memory::MemoryProvider;

use crate::{
    error::ProviderError,
    link::ProviderStatus,
    model::{Health, Instance, InstanceId, ServiceName},
    registration::Registration,
};

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
/// Every call is one attempt. That a registration is wanted for good is the
/// [`Registrar`](crate::Registrar)'s business.
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
