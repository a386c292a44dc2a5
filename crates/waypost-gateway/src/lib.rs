//! An API gateway whose routes come from service discovery.
//!
//! `/{service}/…` is forwarded to a healthy instance of that service, whichever registry it is
//! registered in. No configuration is needed: a service is reachable within a second of its
//! registration.
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
//! | path | response |
//! |---|---|
//! | `/{service}/…` | forwarded without the service name, which is sent in `X-Forwarded-Prefix` |
//! | `/{service}` | 308 to `/{service}/` for GET and HEAD, so that relative links work |
//! | `/` | the routes, as HTML or JSON |
//! | `/health`, `/livez` | the health of the gateway itself |
//! | `/readyz` | the same, but 503 until the registry has listed the services once |
//! | `/internal/health` | the same as `/health`, with the state of the registry |
//! | `/internal/services` | every service with its instances |
//! | `/internal/routes` | every route, with the reason if it does not work |
//!
//! Services named `internal`, `health`, `readyz` or `livez` therefore get no route. Neither does
//! the gateway's own service, nor any service in [`Config::hidden`]. Every client of the gateway
//! can read `/internal/*`: restrict access to these paths before exposing the gateway publicly.
//!
//! # Errors
//! An error response is a problem document (RFC 9457) with the members `reason` and `retryable`:
//!
//! | status | reason |
//! |---|---|
//! | 404 | `unknown_service`: the registry has no such service; `known_services` lists the others |
//! | 503 | `no_instances`, `none_healthy`, `connect_failed`, `registry_unreachable`, with `Retry-After` |
//! | 502 | `connection_broken`, `bad_response`, `not_callable` |
//! | 504 | `connect_timeout`, `response_timeout`, `registry_timeout` |
//! | 500 | `registry_not_authorised`, `registry_error` |
//! | 508 | `loop`: the request has passed through this gateway before |
//! | 400, 408, 501 | what is wrong with the request |
//!
//! # Retries
//! A request is retried on another instance if the first instance cannot have received any of it,
//! or if its method is idempotent (RFC 9110, section 9.2.2), no response has begun and the body is
//! small enough to be replayed. An instance is tried twice only if there is no other, and retries
//! are limited to a small share of all requests.
//!
//! An instance that refuses a connection is passed over for 5 s. One that fails repeatedly is
//! ejected by the library's outlier detection, which classifies responses as described in
//! [`waypost::integration::http::classify`]. `/internal/routes` shows both. While the registry is
//! unavailable, the last known instances are used.
//!
//! # Headers
//! Hop-by-hop headers are removed (RFC 9110, section 7.6.1). `Forwarded`, `X-Forwarded-*` and `Via`
//! are added; those sent by a client are dropped unless it is a [trusted
//! proxy](Config::trusted_proxies). `X-Request-Id` is kept or generated. `X-Waypost-Instance` in a
//! response names the instance that sent it. An `http` instance receives the client's `Host`, an
//! `https` instance its own.

mod access_log;
mod attempt_error;
mod config;
mod framing;
mod gateway;
mod headers;
mod location;
mod pages;
mod problem;
mod proxy;
mod read_after_write_error;
mod recently_refused;
mod request_body;
mod response_body;
mod routes;
mod server;
mod target;
mod tunnel;
mod upstream;

pub use config::Config;
pub use gateway::Gateway;
