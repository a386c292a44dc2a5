//! Runs the registry on 127.0.0.1:8500, or on the address given, with DNS on the second address
//! if one is given.
//!
//! ```text
//! cargo run -p waypost-agent --example agent -- 127.0.0.1:8500 127.0.0.1:8600
//! ```

use std::net::SocketAddr;

use waypost_agent::Agent;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = match std::env::args().nth(1) {
        Some(address) => address.parse()?,
        None => "127.0.0.1:8500".parse()?,
    };
    let dns = std::env::args().nth(2).map(|dns| dns.parse()).transpose()?;
    let agent = Agent::builder().http(address).dns(dns).start().await?;
    println!(
        "Consul's API: {}   the page: {}/ui/",
        agent.url(),
        agent.url()
    );
    tokio::signal::ctrl_c().await?;
    agent.shutdown().await;
    Ok(())
}
