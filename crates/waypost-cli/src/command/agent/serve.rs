//! `waypost agent` without a subcommand

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use waypost::integration::shutdown_signal;
use waypost_agent::Agent;

use crate::command::listen::listen_error;
use crate::command::token_args::token;
use crate::error::{CommandError, CommandResult};
use crate::terminal::announce;

/// The configuration of the embedded registry.
#[derive(Args)]
pub(super) struct Serve {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// Address of the node, which instances registered without an address get [default: the bind
    /// address, or 127.0.0.1 if that is unspecified]
    #[arg(long, value_name = "ADDRESS")]
    advertise: Option<IpAddr>,
    /// Port of the HTTP API and of the web page at /ui/
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 8500,
        env = "SERVICE_REGISTRY_PORT"
    )]
    http_port: u16,
    /// Also serve the HTTP API on this Unix socket
    #[arg(long, value_name = "PATH")]
    http_socket: Option<PathBuf>,
    /// Port of the DNS server; 0 disables it
    #[arg(long, value_name = "PORT", default_value_t = 8600)]
    dns_port: u16,
    /// Store registrations in this directory [default: in memory only]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Token that every request must have. Other users can see it in the list of processes: prefer
    /// the variable or --token-file
    #[arg(long, env = "WAYPOST_AGENT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File with the token, which takes precedence over --token
    #[arg(long, value_name = "PATH", env = "WAYPOST_AGENT_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Node name [default: the host name]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Node ID, a UUID [default: random]
    #[arg(long, value_name = "UUID")]
    node_id: Option<String>,
    /// Datacenter name
    #[arg(long, value_name = "NAME", default_value = "dc1")]
    datacenter: String,
    /// Node metadata; can be repeated
    #[arg(long, value_name = "KEY:VALUE")]
    node_meta: Vec<String>,
    /// Allow clients to register checks that run programs as the user of the agent
    #[arg(long)]
    enable_script_checks: bool,
    /// Limit health checks to this network, address or host name; can be repeated
    #[arg(long, value_name = "TARGET")]
    check_target: Vec<String>,
    /// Also accept requests for this host name; can be repeated
    ///
    /// Requests for IP addresses, localhost and names without a dot are always accepted. Others
    /// are refused if no token is set, as a protection against DNS rebinding.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
}

impl Serve {
    pub(super) async fn run(self) -> CommandResult {
        let shutdown = shutdown_signal();
        let token = token(self.token, self.token_file.as_deref())?;
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
        if let Some(directory) = self.data_dir {
            builder = builder.data_dir(directory);
        }
        if let Some(token) = token {
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
        let agent = builder.start().await.map_err(|error| match error {
            waypost_agent::Error::Bind { address, source } => {
                let is_dns = address.port() == self.dns_port && self.dns_port != 0;
                let option = if is_dns { "--dns-port" } else { "--http-port" };
                listen_error(address, &source, option)
            }
            other => CommandError::other(other),
        })?;
        announce(format_args!(
            "registry: {0}  web page: {0}/ui/",
            agent.url()
        ));
        tokio::select! {
            () = shutdown => {}
            () = agent.left() => {}
        }
        agent.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }
}
