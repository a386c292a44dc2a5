//! What to do when a service is not there, from one line to a whole chain: `cargo run --example
//! fallback`

use waypost::provider::{
    EnvProvider, FallbackProvider, LayerPolicy, LayeredProvider, MemoryProvider,
};
use waypost::{Environment, Error, Instance, ServiceDiscoveryClient, ServiceName, get_service_url};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    // 1. For one call: a default for when the service is unknown or its registry is down.
    let url = get_service_url("billing", Some("http://localhost:8000")).await?;
    println!("billing: {url}");

    // 2. For a whole program: providers in order of precedence. A developer points one service at
    //    a debugger by a variable, the registry knows the rest, and localhost is the last resort.
    let overrides = Environment::from_iter([("SERVICE_AUTH_URL", "http://localhost:9999")]);
    let registry = MemoryProvider::new();
    for (name, url) in [
        ("auth", "http://10.0.0.1:5001"),
        ("search", "http://10.0.0.2:9200"),
    ] {
        registry.insert(Instance::from_url(ServiceName::new(name)?, url)?.build()?);
    }
    let layers = LayeredProvider::new(LayerPolicy::FirstKnown)
        .layer(EnvProvider::new(&overrides)?)
        .layer(registry)
        .layer(FallbackProvider::new("http://localhost:8000")?);
    let client = ServiceDiscoveryClient::builder().provider(layers).build()?;
    for name in ["auth", "search", "unheard-of"] {
        println!("{name}: {}", client.service_url(name, "").await?);
    }

    // 3. `ENVIRONMENT=development` puts that last resort under whichever provider is chosen, with
    //    no change of the code.
    Ok(())
}
