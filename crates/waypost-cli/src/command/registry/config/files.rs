use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Value, json};

use super::secrets::Secrets;
use crate::failure::Failure;

/// A machine of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) ip: IpAddr,
    /// The first of its ports, where it doesn't use Consul's usual ones.
    first_port: Option<u16>,
}

/// `10.0.0.1` for Consul's usual ports; `127.0.0.1:9000` for six in a row from there, so that
/// several nodes fit on one machine.
pub(super) fn node(text: &str) -> Result<Node, String> {
    if let Ok(ip) = text.parse() {
        let first_port = None;
        return Ok(Node { ip, first_port });
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 && address.port() < u16::MAX - 6 => Ok(Node {
            ip: address.ip(),
            first_port: Some(address.port()),
        }),
        _ => Err(format!(
            "{text:?} is no address; write 10.0.0.1, or 10.0.0.1:9000 for six ports from 9000 on"
        )),
    }
}

impl Node {
    fn ports(&self) -> Value {
        match self.first_port {
            // The plain HTTP API stays open on this machine alone; see `addresses`.
            None => json!({ "https": 8501, "serf_wan": -1 }),
            Some(first) => json!({
                "http": first, "https": first + 1, "server": first + 2,
                "serf_lan": first + 3, "dns": first + 4, "grpc": -1, "serf_wan": -1,
            }),
        }
    }

    fn gossip_address(&self) -> String {
        SocketAddr::new(self.ip, self.first_port.map_or(8301, |first| first + 3)).to_string()
    }
}

/// What is to be written, and where.
pub(super) struct Plan<'a> {
    pub(super) out: &'a Path,
    pub(super) servers: &'a [Node],
    pub(super) clients: &'a [Node],
    pub(super) datacenter: &'a str,
    pub(super) data_dir: &'a Path,
    pub(super) installed_at: Option<&'a Path>,
}

impl Plan<'_> {
    /// Writes all and gives the nodes' folders.
    pub(super) fn write(&self, secrets: &Secrets) -> Result<Vec<PathBuf>, Failure> {
        let mut folders = Vec::new();
        for (is_server, nodes) in [(true, self.servers), (false, self.clients)] {
            for (position, node) in nodes.iter().enumerate() {
                let role = if is_server { "server" } else { "client" };
                let name = format!("{role}-{}", position + 1);
                folders.push(self.write_node(&name, node, is_server, secrets)?);
            }
        }
        let own = self.out.join("secrets");
        create(&own)?;
        write(&own.join("ca.pem"), &secrets.ca_certificate())?;
        write(&own.join("ca-key.pem"), &secrets.ca_key())?;
        write(&own.join("root-token"), &secrets.root_token)?;
        write(&own.join("agent-token"), &secrets.agent_token)?;
        write(&own.join("service-policy.hcl"), SERVICE_POLICY)?;
        Ok(folders)
    }

    fn write_node(
        &self,
        name: &str,
        node: &Node,
        is_server: bool,
        secrets: &Secrets,
    ) -> Result<PathBuf, Failure> {
        let folder = self.out.join(name);
        create(&folder)?;
        let certified = secrets.certify(node, is_server)?;
        write(&folder.join("ca.pem"), &secrets.ca_certificate())?;
        write(&folder.join("node.pem"), &certified.certificate)?;
        write(&folder.join("node-key.pem"), &certified.key)?;

        let installed = match self.installed_at {
            Some(folder) => folder.to_owned(),
            None => fs::canonicalize(&folder)?,
        };
        // What may be read by nobody stands by itself, for wherever secrets are kept.
        let mut known = json!({
            "encrypt": secrets.gossip_key,
            "acl": { "tokens": { "agent": secrets.agent_token } },
        });
        let mut config = self.agent(name, node, &installed);
        if is_server {
            known["acl"]["tokens"]["master"] = secrets.root_token.as_str().into();
            config["server"] = true.into();
            config["bootstrap_expect"] = self.servers.len().into();
            // Without it a leader that is overloaded for a moment loses its role.
            config["performance"] = json!({ "raft_multiplier": 1 });
        }
        for (file, content) in [("agent.json", config), ("secrets.json", known)] {
            let text = serde_json::to_string_pretty(&content).map_err(Failure::other)?;
            write(&folder.join(file), &text)?;
        }
        Ok(folder)
    }

    /// What servers and clients have in common.
    fn agent(&self, name: &str, node: &Node, installed: &Path) -> Value {
        let data = match self
            .servers
            .iter()
            .chain(self.clients)
            .any(|n| n.first_port.is_some())
        {
            // Several nodes may be on this machine.
            true => self.data_dir.join(name),
            false => self.data_dir.to_owned(),
        };
        let gossip: Vec<_> = self.servers.iter().map(Node::gossip_address).collect();
        json!({
            "node_name": name,
            "datacenter": self.datacenter,
            "data_dir": data,
            "bind_addr": node.ip.to_string(),
            "addresses": {
                // Plain HTTP for what runs on this machine, HTTPS for all others.
                "http": "127.0.0.1",
                "https": node.ip.to_string(),
                "dns": "127.0.0.1",
            },
            "ports": node.ports(),
            "disable_host_node_id": true,
            "retry_join": gossip,
            "retry_interval": "2s",
            "ca_file": installed.join("ca.pem"),
            "cert_file": installed.join("node.pem"),
            "key_file": installed.join("node-key.pem"),
            "verify_incoming": true,
            "verify_outgoing": true,
            "verify_server_hostname": true,
            "acl": {
                "enabled": true,
                "default_policy": "deny",
                "enable_token_persistence": true,
            },
            "leave_on_terminate": false,
            // Discovery needs no remote commands.
            "disable_remote_exec": true,
        })
    }
}

const SERVICE_POLICY: &str = "\
# The rights of one service: to register itself and to find all others.
service \"NAME\" { policy = \"write\" }
service_prefix \"\" { policy = \"read\" }
node_prefix \"\" { policy = \"read\" }
";

fn create(folder: &Path) -> Result<(), Failure> {
    let named = |error: io::Error| Failure::Other(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(named)?;
    private(folder, 0o700).map_err(named)
}

/// All these files are secret, or say where secrets are.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let named = |error: io::Error| Failure::Other(format!("{}: {error}", path.display()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(named)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(named)
}

#[cfg(unix)]
fn private(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn private(_: &Path, _: u32) -> io::Result<()> {
    Ok(())
}
