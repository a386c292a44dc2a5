//! The HTTP API. Each area of Consul's API has a module with its routes and handlers. Requests
//! arrive through [`server`], pass the steps in [`middleware`] and are dispatched by [`router`].

mod acl;
mod agent;
mod blocking;
mod catalog;
mod coordinate;
mod evaluation;
mod event;
mod health;
mod idle_timeout;
mod internal;
mod json;
mod kv;
mod listener;
mod middleware;
mod operator;
mod path;
mod request;
mod request_line;
mod response;
mod route;
mod router;
mod select;
mod server;
mod session;
mod status;
mod txn;
mod ui;
mod unsupported;
mod waypost;

pub(crate) use evaluation::MAX_EVALUATIONS;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use idle_timeout::ConnectionState;
pub(crate) use idle_timeout::MemoryBudget;
pub(crate) use listener::Listener;
pub(crate) use middleware::MAX_LARGE_BODIES;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) use middleware::handle;
pub(crate) use server::{default_max_connections, serve};
