//! DNS: the same instances for whatever can only ask a resolver.
//!
//! Names end in `consul.`; other names are refused, so that a resolver can send just these here.
//! The answers are Consul's with its default settings: a TTL of 0 and no truncation flag.

mod answering;
mod fit;
mod question;
mod records;
mod respond;
mod server;

#[cfg(any(test, feature = "fuzz"))]
pub(crate) use fit::Limit;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use respond::respond;
pub(crate) use server::{bind, serve};
