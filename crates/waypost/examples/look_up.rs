//! Looks a service up by name: `cargo run --example look_up -- ai-models /api/models`
//!
//! The environment chooses the provider. Try it while `waypost up` runs, or with
//! `SERVICE_AI_MODELS_URL=http://localhost:8002`.

use waypost::{Error, ServiceDiscoveryClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "ai-models".into());
    let path = arguments.next().unwrap_or_default();

    let client = ServiceDiscoveryClient::builder().build()?;
    println!("provider: {}", client.provider().describe());

    // All instances that accept requests.
    for instance in client.discover_service(name.as_str()).await? {
        let version = instance.version().unwrap_or("?");
        println!("{} {} version {version}", instance.id(), instance.url());
    }
    // One of them, picked by the load balancer.
    println!("url: {}", client.service_url(name.as_str(), &path).await?);

    // If the registry is down, the snapshot is the last known good answer.
    let snapshot = client
        .directory()
        .lookup(&name.as_str().try_into()?)
        .await?;
    let freshness = snapshot.freshness();
    match freshness.failure() {
        None => println!("up to date"),
        Some(failure) => println!("stale, age {:?}: {}", freshness.age(), failure.error()),
    }
    Ok(())
}
