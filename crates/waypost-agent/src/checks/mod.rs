//! The checks that this agent runs. Each kind has a module.
//!
//! A check runs for the first time as soon as it is registered, not after a random part of its
//! interval as in Consul, so that a healthy service is passing when its registration returns, or
//! soon after. The second run comes after a random part of the interval, which spreads checks that
//! were registered together.

mod alias;
mod grpc;
mod http;
mod result;
mod runner;
mod script;
mod tcp;
mod threshold;
mod tls;
mod ttl;

pub(crate) use runner::{CheckRunner, RunningCheck};
