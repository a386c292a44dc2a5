//! The DNS interface, for clients that can only use a resolver.
//!
//! Names end in `consul.`. Other names are refused, so that a resolver can forward just this zone.
//! The responses are those of Consul with its default settings: a TTL of 0 and no truncation flag.

mod handler;
mod name;
mod records;
mod resolver;
mod server;
mod size_limit;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use handler::respond;
pub(crate) use server::{bind, serve};
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use size_limit::SizeLimit;
