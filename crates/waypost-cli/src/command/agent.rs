use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use waypost::integration::shutdown_signal;
use waypost_agent::Agent;

use super::Outcome;
use crate::failure::Failure;

/// Run the embedded registry, which speaks Consul's HTTP API
///
/// It has one node and keeps what it knows in memory; for more than one machine, use Consul.
#[derive(Args)]
pub(crate) struct Serve {
    /// The address to listen on
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// The port of the HTTP API and of the page at /ui/
    #[arg(long, default_value_t = 8500, env = "SERVICE_REGISTRY_PORT")]
    http_port: u16,
    /// The port of DNS; 0 for none
    #[arg(long, default_value_t = 8600)]
    dns_port: u16,
    /// Keep what is registered in this folder
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// The token that every request must carry
    #[arg(long, env = "WAYPOST_AGENT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The name of the node [default: this host's]
    #[arg(long)]
    node: Option<String>,
}

impl Serve {
    pub(super) async fn run(self) -> Outcome {
        let mut builder = Agent::builder().http(SocketAddr::new(self.bind, self.http_port));
        if self.dns_port != 0 {
            builder = builder.dns(Some(SocketAddr::new(self.bind, self.dns_port)));
        }
        if let Some(folder) = self.data_dir {
            builder = builder.data_dir(folder);
        }
        if let Some(token) = self.token {
            builder = builder.token(token);
        }
        if let Some(node) = self.node {
            builder = builder.node_name(node);
        }
        let agent = builder.start().await.map_err(Failure::other)?;
        println!("registry: {0}  page: {0}/ui/", agent.url());
        shutdown_signal().await;
        agent.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }
}
