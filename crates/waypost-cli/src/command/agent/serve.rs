use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use waypost::integration::shutdown_signal;
use waypost_agent::Agent;

use super::super::Outcome;
use crate::failure::Failure;

/// What the registry is to be like.
#[derive(Args)]
pub(crate) struct Serve {
    /// The address to listen on
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// The address of the node, for instances that name none [default: the one it listens on, or
    /// 127.0.0.1 if that is all of them]
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<IpAddr>,
    /// The port of the HTTP API and of the page at /ui/
    #[arg(long, default_value_t = 8500, env = "SERVICE_REGISTRY_PORT")]
    http_port: u16,
    /// A Unix socket to serve the HTTP API on too
    #[arg(long, value_name = "PATH")]
    http_socket: Option<PathBuf>,
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
    /// The id of the node, a UUID [default: another one every time]
    #[arg(long, value_name = "UUID")]
    node_id: Option<String>,
    /// The name of the datacenter
    #[arg(long, value_name = "NAME", default_value = "dc1")]
    datacenter: String,
    /// What the node says of itself; can be repeated
    #[arg(long, value_name = "KEY:VALUE")]
    node_meta: Vec<String>,
    /// Let clients register checks that run programs as you
    #[arg(long)]
    enable_script_checks: bool,
    /// The only network, address or host name where health checks may look; can be repeated
    #[arg(long, value_name = "TARGET")]
    check_target: Vec<String>,
    /// A name with a dot by which clients may call the agent; can be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
}

impl Serve {
    pub(super) async fn run(self) -> Outcome {
        let mut builder = Agent::builder()
            .http(SocketAddr::new(self.bind, self.http_port))
            .datacenter(self.datacenter)
            .enable_script_checks(self.enable_script_checks);
        if let Some(path) = self.http_socket {
            builder = builder.http_socket(path);
        }
        if self.dns_port != 0 {
            builder = builder.dns(Some(SocketAddr::new(self.bind, self.dns_port)));
        }
        if let Some(address) = self.advertise {
            builder = builder.advertise(address);
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
        if let Some(id) = self.node_id {
            builder = builder.node_id(id);
        }
        if !self.check_target.is_empty() {
            builder = builder.check_targets(self.check_target);
        }
        for name in self.allow_host {
            builder = builder.allow_host(name);
        }
        for pair in &self.node_meta {
            let (key, value) = pair.split_once(':').unwrap_or((pair, ""));
            builder = builder.node_meta(key, value);
        }
        let agent = builder.start().await.map_err(Failure::other)?;
        println!("registry: {0}  page: {0}/ui/", agent.url());
        tokio::select! {
            _ = shutdown_signal() => {}
            () = agent.left() => {}
        }
        agent.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }
}
