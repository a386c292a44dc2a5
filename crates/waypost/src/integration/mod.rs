//! Integrations with web frameworks and HTTP clients, each behind the feature of its name.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "http")]
pub mod http;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod leased_body;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(any(feature = "reqwest", feature = "tower"))]
pub mod retry;
#[cfg(feature = "signal")]
mod shutdown;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod span;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "tower")]
pub mod tower;

#[cfg(any(feature = "reqwest", feature = "tower"))]
pub use self::leased_body::LeasedBody;
#[cfg(feature = "signal")]
pub use self::shutdown::shutdown_signal;
