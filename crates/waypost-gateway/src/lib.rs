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
//! | `/` | the routes as JSON, for browsers the dashboard, if [`Config::list_routes`] is set |
//! | `/.waypost/…` | the files of that dashboard, and its data |
//! | `/health`, `/livez` | the health of the gateway itself |
//! | `/readyz` | the same, but 503 until the registry has listed the services once |
//!
//! Services named `internal`, `metrics`, `health`, `readyz` or `livez` therefore get no route. Neither
//! does the gateway's own service, nor any service in [`Config::hidden`].
//!
//! A [listener of their own](Gateway::with_internal) serves the pages for operators:
//!
//! | path | response |
//! |---|---|
//! | `/internal/health` | the same as `/health`, with the state of the registry |
//! | `/internal/services` | the services with their instances, `?limit=` at a time |
//! | `/internal/routes` | the routes, with the reason if one does not work |
//! | `/internal/traffic` | the last 15 minutes second by second, then each second as an event |
//! | `/metrics` | metrics in Prometheus' format |
//!
//! # Threads
//! Each core has a thread with a runtime, clients and connections to instances of its own, so cores
//! don't wait for each other. The runtime that [`Gateway::serve`] runs in does the rest: discovery,
//! registration, accepting connections and the pages for operators.
//!
//! # Spans
//! With the feature `otlp`, a span for each request and each attempt is exported by OTLP. It is configured by
//! OpenTelemetry's variables in [`Config::environment`], such as `OTEL_EXPORTER_OTLP_ENDPOINT`. Without the
//! feature or an endpoint, `traceparent` is passed on unchanged.
//!
//! # Errors
//! An error response is a problem document (RFC 9457) with the members `reason` and `retryable`:
//!
//! | status | reason |
//! |---|---|
//! | 404 | `unknown_service`: the registry has no such service; `similar_services` has names like it |
//! | 308 | `other_letter_case`: the service is registered in another letter case, which `Location` has |
//! | 503 | `no_instances`, `none_healthy`, `connect_failed`, `registry_unreachable`, `registry_stale`, `gateway_overloaded`, with `Retry-After` |
//! | 502 | `connection_broken`, `bad_response`, `not_callable` |
//! | 504 | `connect_timeout`, `response_timeout`, `registry_timeout` |
//! | 500 | `registry_not_authorised`, `registry_error` |
//! | 508 | `loop`: the request has passed through this gateway before |
//! | 503 | `routes_unknown`: the HTTPRoutes have not been listed yet |
//! | 500 | `backend_not_resolved`: the backend of an HTTPRoute is not valid |
//! | 401 | `token_missing`, `token_invalid`, `api_key_missing`, `api_key_invalid`, with `WWW-Authenticate` |
//! | 403 | `claim_missing` |
//! | 503 | `external_auth_failed`, `token_keys_unavailable` |
//! | 400, 408, 413, 501 | what is wrong with the request |
//!
//! A browser gets a page instead, and a gRPC client a gRPC status.
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
mod auth;
mod client;
mod client_stream;
mod config;
mod connection;
mod connection_context;
mod deadlines;
mod exchange;
mod forwarded;
mod framing;
#[cfg(any(test, feature = "fuzz"))]
#[doc(hidden)]
pub mod fuzz;
mod gateway;
#[cfg(feature = "kubernetes")]
mod gateway_api;
mod gzip_body;
mod header_edits;
mod headers;
mod html;
mod http_connection;
mod internal;
mod listener;
mod mirror;
mod outgoing_headers;
mod outgoing_request;
mod pages;
mod policy;
mod problem;
mod proxy;
mod recently_refused;
mod request_body;
mod request_ids;
mod response_body;
mod response_framing;
mod retry_budget;
mod rewrite;
// What only HTTPRoutes use is compiled in any case.
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code))]
mod routes;
mod server;
mod server_tls;
mod service;
mod similar;
mod spans;
mod stream_info;
mod target;
mod traffic;
mod transport;
mod tunnel;
mod upstream;
mod worker;
mod worker_thread;

/// A type of the crate `ipnet` in [`Config::trusted_proxies`].
pub use ipnet::IpNet;

pub use access_log::{AccessLog, AccessLogFormat};
pub use config::Config;
pub use gateway::Gateway;
#[cfg(feature = "kubernetes")]
pub use gateway_api::GatewayApi;
pub use routes::check_routes;
pub use server_tls::TlsCertificate;
