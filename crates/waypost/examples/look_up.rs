//! Finds a service by name and calls it: `cargo run --example look_up -- ai-models /api/models`
//!
//! Where the instances come from is told by the environment. Try it beside `waypost up`, or with
//! `SERVICE_AI_MODELS_URL=http://localhost:8002`.

use waypost::{Error, ServiceDiscoveryClient};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "ai-models".into());
    let path = arguments.next().unwrap_or_default();

    let client = ServiceDiscoveryClient::builder().build()?;
    println!("asking {}", client.provider().describe());

    // Each instance that takes work ...
    for instance in client.discover_service(name.as_str()).await? {
        let version = instance.version().unwrap_or("?");
        println!("{} {} version {version}", instance.id(), instance.url());
    }
    // ... and one of them, chosen by the load balancer.
    println!("call {}", client.service_url(name.as_str(), &path).await?);

    // What is known, and how well: this is what stays when the registry goes.
    let snapshot = client
        .directory()
        .lookup(&name.as_str().try_into()?)
        .await?;
    let freshness = snapshot.freshness();
    match freshness.failure() {
        None => println!("fresh, from {}", freshness.provider()),
        Some(failure) => println!("{:?} old: {}", freshness.age(), failure.error()),
    }
    Ok(())
}
