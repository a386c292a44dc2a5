//! `waypost registry config`: writes the configuration of a cluster of servers and client agents,
//! with TLS from its own CA, encrypted gossip, and ACLs that deny by default.

mod cluster;
mod node;
mod secrets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::cluster::Cluster;
use self::node::Node;
use self::secrets::Secrets;
use crate::error::{CommandError, CommandResult};
use crate::terminal::{print_line, print_verbatim};

/// Write the configuration of a Consul cluster: agents, TLS, gossip encryption and ACLs
///
/// Writes a directory for each node, to be copied to that node and started there with `waypost
/// registry start --config DIR`. The directory `secrets` contains the key of the CA and a token with
/// all permissions: keep it safe, and do not copy it to the nodes.
///
/// A node given as IP uses Consul's default ports. A node given as IP:PORT uses six consecutive
/// ports, starting at PORT, so that several nodes can run on one machine.
#[derive(Args)]
pub(crate) struct Config {
    /// Directory to write to; must be empty or not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Address at which the other nodes reach a server; repeat it for 3 or 5 servers
    #[arg(long = "server", value_name = "IP[:PORT]", required = true)]
    servers: Vec<Node>,
    /// Address of a client agent; repeat it for each machine that runs services
    #[arg(long = "client", value_name = "IP[:PORT]")]
    clients: Vec<Node>,
    /// Datacenter name
    #[arg(long, value_name = "NAME", default_value = "dc1")]
    datacenter: String,
    /// Data directory of a node
    #[arg(long, value_name = "DIR", default_value = "/var/lib/consul")]
    data_dir: PathBuf,
    /// Directory that the files will be copied to on the node [default: the directory they are written to]
    #[arg(long, value_name = "DIR")]
    installed_at: Option<PathBuf>,
}

impl Config {
    pub(super) fn run(self) -> CommandResult {
        if !matches!(self.servers.len(), 1 | 3 | 5) {
            return Err(CommandError::Other(format!(
                "--server is given {} times; a cluster needs 1, 3 or 5 servers to have a quorum",
                self.servers.len()
            )));
        }
        let is_occupied = |mut entries: std::fs::ReadDir| entries.next().is_some();
        if self.out.read_dir().is_ok_and(is_occupied) {
            return Err(CommandError::Other(format!(
                "{} is not empty; it may hold the only copy of a cluster's keys",
                self.out.display()
            )));
        }
        let secrets = Secrets::new(&self.datacenter)?;
        let cluster = Cluster {
            out: &self.out,
            servers: &self.servers,
            clients: &self.clients,
            datacenter: &self.datacenter,
            data_dir: &self.data_dir,
            installed_at: self.installed_at.as_deref(),
        };
        for directory in cluster.write(&secrets)? {
            print_line(directory.display())?;
        }
        print_verbatim(&format!(
            "next: copy each directory to its node, and run there\n  \
             waypost registry start --config DIR\n\
             when the servers are running, run on one of them\n  \
             waypost registry bootstrap --secrets {}\n",
            self.out.join("secrets").display()
        ))?;
        Ok(ExitCode::SUCCESS)
    }
}
