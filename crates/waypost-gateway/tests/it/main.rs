//! The gateway over real HTTP, in front of real small servers.

mod access_log;
mod consul;
mod failures;
mod headers;
mod pages;
mod retries;
mod routing;
mod shutdown;
mod smuggling;
mod streaming;
mod support;
mod tls;
mod tunnels;
