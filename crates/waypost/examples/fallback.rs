//! Fallbacks for services that can't be found, for one call and for a program:
//! `cargo run --example fallback`

use waypost::provider::{
    EnvProvider, FallbackProvider, LayerPolicy, LayeredProvider, MemoryProvider,
};
use waypost::{Environment, Error, Instance, ServiceDiscoveryClient, ServiceName, get_service_url};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // 1. For one call: a default URL, used if the service is unknown or the registry is down.
    let url = get_service_url("billing", Some("http://localhost:8000")).await?;
    println!("billing: {url}");

    // 2. For a whole program: providers in order of precedence. An environment variable overrides the
    //    URL of a service, the registry has the other services, and localhost is the fallback.
    let overrides = Environment::from_iter([("SERVICE_AUTH_URL", "http://localhost:9999")]);
    let registry = MemoryProvider::new();
    for (name, url) in [
        ("auth", "http://10.0.0.1:5001"),
        ("search", "http://10.0.0.2:9200"),
    ] {
        registry.insert(Instance::from_url(ServiceName::new(name)?, url)?.build()?);
    }
    let layers = LayeredProvider::new(LayerPolicy::FirstKnown)
        .layer(EnvProvider::new(&overrides))
        .layer(registry)
        .layer(FallbackProvider::new("http://localhost:8000")?);
    let client = ServiceDiscoveryClient::builder().provider(layers).build()?;
    for name in ["auth", "search", "unknown"] {
        println!("{name}: {}", client.service_url(name, "").await?);
    }

    // 3. Without code: `ENVIRONMENT=development` adds the localhost fallback to any provider.
    Ok(())
}
