//! An axum service with registration, health checks and graceful shutdown:
//! `cargo run --example axum_service --features axum`
//!
//! Try `waypost instances hello` and `curl localhost:8080/health`, then stop it with Ctrl-C.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use tokio::net::TcpListener;
use waypost::health::CheckFunction;
use waypost::integration::axum::{ServeError, serve};
use waypost::{HealthChecks, ServiceDiscoveryClient, ServiceRegistration};

async fn check_database() -> bool {
    true
}

async fn check_cache() -> Result<(), String> {
    Err("no cache in this example".into())
}

/// Handlers use the client to look other services up.
async fn services(State(client): State<ServiceDiscoveryClient>) -> String {
    match client.services().await {
        Ok(catalog) => format!("{:?}\n", catalog.names()),
        Err(error) => format!("{error}\n"),
    }
}

#[tokio::main]
async fn main() -> Result<(), ServeError> {
    let client = ServiceDiscoveryClient::builder().build()?;
    let health = HealthChecks::new("hello")
        .check("database", check_database)
        .with(CheckFunction::new("cache", check_cache).advisory());
    let registration = ServiceRegistration::new("hello", 8080)?
        .version("1.0.0")
        .meta("features", "greeting");

    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .route("/services", get(services))
        .with_state(client.clone());
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    serve(listener, app)
        .health(health)
        .register(registration)
        .provider(client.provider().clone())
        .run()
        .await
}
