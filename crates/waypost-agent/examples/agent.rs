//! Runs the registry. The arguments, all optional, are the address of the HTTP API (by default
//! 127.0.0.1:8500), the address of the DNS server, and the data directory.
//!
//! ```text
//! cargo run -p waypost-agent --example agent -- 127.0.0.1:8500 127.0.0.1:8600 /tmp/registry
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
    let mut builder = Agent::builder().http(address).dns(dns);
    if let Some(directory) = std::env::args().nth(3) {
        builder = builder.data_dir(directory);
    }
    let agent = builder.start().await?;
    println!("HTTP API: {}   web page: {}/ui/", agent.url(), agent.url());
    tokio::signal::ctrl_c().await?;
    agent.shutdown().await;
    Ok(())
}
