//! Runs the registry on 127.0.0.1:8500, or on the address given.
//!
//! ```text
//! cargo run -p waypost-agent --example agent -- 127.0.0.1:8500
//! ```

use std::net::SocketAddr;

use waypost_agent::Agent;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = match std::env::args().nth(1) {
        Some(address) => address.parse()?,
        None => "127.0.0.1:8500".parse()?,
    };
    let agent = Agent::builder().http(address).start().await?;
    println!(
        "Consul's API: {}   the page: {}/ui/",
        agent.url(),
        agent.url()
    );
    tokio::signal::ctrl_c().await?;
    agent.shutdown().await;
    Ok(())
}
