//! Writes the configuration of a cluster: three servers (or one, or five) and client agents, with
//! TLS by a CA of their own, encrypted gossip and ACLs that deny by default.

mod files;
mod secrets;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::files::Plan;
use self::secrets::Secrets;
use super::super::Outcome;
use crate::failure::Failure;

/// Write the configuration of a Consul cluster: agents, TLS, gossip key and ACLs
///
/// Each node gets a folder to be copied there, for `waypost registry start --config FOLDER`. The
/// folder `secrets` has the CA's key and the first token; keep it, and keep it off the nodes.
#[derive(Args)]
pub(crate) struct Config {
    /// Where to write; must be new or empty
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// A server's address as the others reach it, with --server given once for each: 1, 3 or 5
    #[arg(long = "server", value_name = "IP[:PORTS]", required = true, value_parser = files::node)]
    servers: Vec<files::Node>,
    /// A client agent's address; one for each machine with services
    #[arg(long = "client", value_name = "IP[:PORTS]", value_parser = files::node)]
    clients: Vec<files::Node>,
    /// The name of the datacenter
    #[arg(long, default_value = "dc1")]
    datacenter: String,
    /// Where a node keeps its data
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/consul")]
    data_dir: PathBuf,
    /// Where a node's folder will lie on its machine [default: where it is written]
    #[arg(long, value_name = "FOLDER")]
    installed_at: Option<PathBuf>,
}

impl Config {
    pub(super) fn run(self) -> Outcome {
        if !matches!(self.servers.len(), 1 | 3 | 5) {
            return Err(Failure::Other(format!(
                "--server was given {} times; a cluster has 1, 3 or 5 servers, so that more than \
                 half of them are a clear majority",
                self.servers.len()
            )));
        }
        if self
            .out
            .read_dir()
            .is_ok_and(|mut folder| folder.next().is_some())
        {
            let out = self.out.display();
            return Err(Failure::Other(format!(
                "{out} is not empty; what is there may be the only copy of a cluster's keys"
            )));
        }
        let secrets = Secrets::new(&self.datacenter)?;
        let plan = Plan {
            out: &self.out,
            servers: &self.servers,
            clients: &self.clients,
            datacenter: &self.datacenter,
            data_dir: &self.data_dir,
            installed_at: self.installed_at.as_deref(),
        };
        for folder in plan.write(&secrets)? {
            println!("{}", folder.display());
        }
        println!(
            "next: copy each node's folder to its machine, and there\n  \
             waypost registry start --config FOLDER\n\
             once the servers run, on one of them\n  \
             waypost registry bootstrap --secrets {}",
            self.out.join("secrets").display()
        );
        Ok(ExitCode::SUCCESS)
    }
}
