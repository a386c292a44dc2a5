//! An API gateway whose routes come from service discovery.
//!
//! `/{service}/…` goes to a healthy instance of that service, whichever registry knows it. There
//! is nothing to configure: a service that registers is reachable within a second.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use waypost::ServiceDiscoveryClient;
//! use waypost_gateway::{Config, Gateway};
//!
//! let client = ServiceDiscoveryClient::builder().build()?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
//! let stop = async { let _ = tokio::signal::ctrl_c().await; };
//! Gateway::new(client, Config::default()).serve(listener, stop).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Paths
//! | path | answer |
//! |---|---|
//! | `/{service}/…` | the service's; the name is taken off the path, `X-Forwarded-Prefix` has it |
//! | `/{service}` | 308 to `/{service}/` for GET and HEAD, so that relative links work |
//! | `/` | the routes, as a page or as JSON |
//! | `/health`, `/livez` | the gateway's own health |
//! | `/readyz` | the same, and 503 until it has heard once which services there are |
//! | `/internal/health` | the same, and how old the registry's word is |
//! | `/internal/services` | every service with its instances |
//! | `/internal/routes` | every route, and why it doesn't work if it doesn't |
//!
//! So `internal`, `health`, `readyz` and `livez` can't be reached as names of services. Neither
//! can the gateway's own name, nor what [`Config::hidden`] lists. Whoever reaches the gateway can
//! read `/internal/*`; put it behind something that guards these paths before it faces the world.
//!
//! # When something fails
//! The answer is a problem document (RFC 9457) with a `reason`, and `retryable`:
//!
//! | status | reason |
//! |---|---|
//! | 404 | `unknown_service`: the registry knows no such name; `known_services` lists those it does |
//! | 503 | `no_instances`, `none_healthy`, `connect_failed`, `registry_unreachable`, with `Retry-After` |
//! | 502 | `connection_broken`, `bad_response`, `not_callable` |
//! | 504 | `connect_timeout`, `response_timeout`, `registry_timeout` |
//! | 500 | `registry_not_authorised`, `registry_error` |
//! | 508 | `loop`: the request has come through this gateway before |
//! | 400, 408, 501 | what is wrong with the request |
//!
//! A request is tried on another instance if the first has certainly seen nothing of it, or if its
//! method is idempotent (RFC 9110, section 9.2.2), no response has begun and its body is short
//! enough to be sent again; never on the same one while there is another, and only as long as
//! retries stay a small share of all requests. An instance that refuses connections is left alone
//! for 5 s, and one that fails again and again is ejected by the library's outlier detection;
//! `/internal/routes` shows both. While the registry is away, the instances that it named last are
//! used.
//!
//! # Headers
//! Hop-by-hop headers end here (RFC 9110, section 7.6.1). `Forwarded`, `X-Forwarded-*` and `Via`
//! are written anew; a client's own are dropped unless it is a [trusted
//! proxy](Config::trusted_proxies). `X-Request-Id` is kept, or made. A response says by
//! `X-Waypost-Instance` which instance gave it. An `http` instance sees the client's `Host`, an
//! `https` one its own.

mod access_log;
mod avoid;
mod config;
mod failure;
mod framing;
mod gateway;
mod headers;
mod location;
mod outcome;
mod pages;
mod problem;
mod proxy;
mod request_body;
mod response_body;
mod routes;
mod server;
mod target;
mod tunnel;
mod upstream;
mod upstream_io;

pub use config::Config;
pub use gateway::Gateway;
