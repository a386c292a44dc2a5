//! The provider traits, and the providers that need no network.
//!
//! A [`Provider`] answers [`watch`](Provider::watch) with a stream of *complete* answers: each holds
//! everything that is known about the service at that moment, so a lost or repeated one does no harm.
//! A [`Registry`] is a provider that services can also be registered with.
//!
//! A provider does not retry, cache or keep old answers. When an attempt fails it reports the error
//! and may end its stream. Waypost's directory restarts the watch after a backoff (see
//! [`supervision`](crate::supervision)) and serves the last known good answer meanwhile, for all
//! providers alike.
//!
//! # Adding a provider
//! Implement [`Provider`], and pass it to `ServiceDiscoveryClient::builder` or
//! `set_discovery_provider` of the crate `waypost`. Its `examples/own_provider.rs` is a complete
//! provider. Test yours with the suite in `waypost_core::conformance`.

mod env;
mod fallback;
mod file;
mod ignored_values;
mod layered;
mod memory;
mod token_file;
mod traits;

/// Types of the crate `futures-util` in the signatures of the traits.
pub use futures_util::{future::BoxFuture, stream::BoxStream};

pub use env::EnvProvider;
pub use fallback::FallbackProvider;
#[cfg(feature = "fuzz")]
pub(crate) use file::parse_file;
pub use file::{StaticProvider, services_from_json};
pub use ignored_values::IgnoredValues;
pub use layered::{LayerPolicy, LayeredProvider};
pub use memory::MemoryProvider;
pub use token_file::TokenFile;
pub use traits::{
    CheckResult, HeartbeatResponse, InstanceReport, NamesWatch, Provider, Registry, ServiceAnswer,
    Watch,
};
