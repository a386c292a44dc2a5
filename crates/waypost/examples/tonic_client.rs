//! Asks a gRPC service for its health, at an instance found by name:
//! `cargo run --example tonic_client --features tonic -- greeter`
//!
//! Any client that tonic generates takes the channel in the same way.

use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use waypost::ServiceDiscoveryClient;
use waypost::integration::tonic::BalancedChannel;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "greeter".into());

    let discovery = ServiceDiscoveryClient::builder()
        .strategy_named("p2c_peak_ewma")
        .build()?;
    // Connections are made as instances come, and closed as they leave.
    let channel = BalancedChannel::new(&discovery, name.as_str())?;
    channel.balancer().ready().await?;

    let mut client = HealthClient::new(channel.clone());
    for _ in 0..3 {
        let answer = client.check(HealthCheckRequest::default()).await?;
        println!("{:?}", answer.into_inner().status());
    }
    println!("{} connections", channel.connections());
    Ok(())
}
