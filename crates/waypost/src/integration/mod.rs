//! Integrations with web frameworks and HTTP clients, each behind the feature of its name.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(any(feature = "axum", feature = "tonic-server"))]
mod graceful;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "hyper-util")]
pub mod hyper_util;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod leased_body;
#[cfg(any(feature = "hyper-util", feature = "reqwest"))]
mod names;
#[cfg(feature = "reqwest")]
pub mod reqwest;
#[cfg(any(feature = "hyper-util", feature = "reqwest", feature = "tower"))]
pub mod retry;
#[cfg(feature = "signal")]
mod shutdown;
#[cfg(any(feature = "reqwest", feature = "tower"))]
mod span;
#[cfg(feature = "tonic")]
pub mod tonic;
#[cfg(feature = "tonic-server")]
pub mod tonic_server;
#[cfg(feature = "tower")]
pub mod tower;

#[cfg(any(feature = "reqwest", feature = "tower"))]
pub use self::leased_body::LeasedBody;
#[cfg(feature = "signal")]
pub use self::shutdown::shutdown_signal;
