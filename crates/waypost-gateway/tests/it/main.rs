//! Integration tests: a gateway over real HTTP, with small servers as instances.

mod access_log;
mod api_keys;
#[cfg(feature = "kubernetes")]
mod certificate_refs;
mod client_tls;
mod compression;
mod consul;
mod external_auth;
mod failures;
mod grpc;
mod grpcio;
mod headers;
mod http2;
mod http2_frames;
#[cfg(feature = "kubernetes")]
mod http_routes;
mod idle_connections;
mod jwt;
mod limits;
mod mirror;
mod pages;
mod registry_outages;
mod responses;
mod retries;
mod routes_file;
mod routing;
mod shutdown;
mod slow_clients;
mod smuggling;
#[cfg(feature = "otlp")]
mod spans;
mod streaming;
mod support;
mod tls;
mod traffic;
mod tunnels;
mod under_load;
