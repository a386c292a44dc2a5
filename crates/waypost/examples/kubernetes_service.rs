//! A service for Kubernetes that calls another one by name, with the manifests in `examples/kubernetes`:
//! `cargo run --example kubernetes_service --features axum,kubernetes,reqwest`
//!
//! In a pod it finds services through the API server. On a laptop with a kubeconfig it finds those of the cluster
//! and those of this process, which take precedence.

use std::error::Error;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use waypost::integration::axum::serve;
use waypost::integration::reqwest::Client;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::provider::{LayerPolicy, LayeredProvider, MemoryProvider};
use waypost::{HealthChecks, Instance, ServiceDiscoveryClient};

/// Responds with the response of the service `greeting`.
async fn hello(State(client): State<Client>) -> Result<String, (StatusCode, String)> {
    let failed = |error: &dyn Error| (StatusCode::BAD_GATEWAY, format!("{error}\n"));
    let response = client.get("http://greeting/").send().await;
    let response = response.map_err(|error| failed(&error))?;
    response.text().await.map_err(|error| failed(&error))
}

fn discovery() -> Result<ServiceDiscoveryClient, Box<dyn Error>> {
    let cluster = KubernetesProvider::builder().build()?;
    let own = MemoryProvider::new();
    if let Ok(url) = std::env::var("GREETING_URL") {
        own.insert(Instance::from_url("greeting".parse()?, &url)?.build()?);
    }
    let both = LayeredProvider::new(LayerPolicy::FirstKnown)
        .layer(own)
        .layer(cluster);
    Ok(ServiceDiscoveryClient::builder().provider(both).build()?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init();
    let port = std::env::var("PORT").unwrap_or_else(|_| "8080".into());
    let bind = std::env::var("BIND").unwrap_or_else(|_| "0.0.0.0".into());

    // A program that enables one of reqwest's TLS features doesn't need this. An error means that it is installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().no_proxy();
    let client = Client::new(discovery()?, http.build()?);
    let app = Router::new().route("/", get(hello)).with_state(client);
    let listener = TcpListener::bind(format!("{bind}:{port}")).await?;
    // Kubernetes lists the pod while /readyz succeeds. SIGTERM ends it once requests in flight have ended.
    serve(listener, app)
        .health(HealthChecks::new("hello"))
        .run()
        .await?;
    Ok(())
}
