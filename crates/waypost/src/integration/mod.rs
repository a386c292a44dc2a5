//! Where the library meets web frameworks, one room each, each behind the feature of its name.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "axum")]
mod shutdown;

#[cfg(feature = "axum")]
pub use shutdown::shutdown_signal;
