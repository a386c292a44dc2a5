//! Writes the files of a cluster.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Value, json};

use super::node::Node;
use super::secrets::Secrets;
use crate::error::CommandError;

/// The cluster to write, and where to write it.
pub(super) struct Cluster<'a> {
    pub(super) out: &'a Path,
    pub(super) servers: &'a [Node],
    pub(super) clients: &'a [Node],
    pub(super) datacenter: &'a str,
    pub(super) data_dir: &'a Path,
    pub(super) installed_at: Option<&'a Path>,
}

impl Cluster<'_> {
    /// Writes all files and returns the directories of the nodes.
    pub(super) fn write(&self, secrets: &Secrets) -> Result<Vec<PathBuf>, CommandError> {
        let mut directories = Vec::new();
        for (is_server, nodes) in [(true, self.servers), (false, self.clients)] {
            for (position, node) in nodes.iter().enumerate() {
                let role = if is_server { "server" } else { "client" };
                let name = format!("{role}-{}", position + 1);
                directories.push(self.write_node(&name, node, is_server, secrets)?);
            }
        }
        let directory = self.out.join("secrets");
        create(&directory)?;
        write(&directory.join("ca.pem"), &secrets.ca_certificate())?;
        write(&directory.join("ca-key.pem"), &secrets.ca_key())?;
        write(&directory.join("root-token"), &secrets.root_token)?;
        write(&directory.join("agent-token"), &secrets.agent_token)?;
        write(&directory.join("service-policy.hcl"), SERVICE_POLICY)?;
        Ok(directories)
    }

    fn write_node(
        &self,
        name: &str,
        node: &Node,
        is_server: bool,
        secrets: &Secrets,
    ) -> Result<PathBuf, CommandError> {
        let directory = self.out.join(name);
        create(&directory)?;
        let certified = secrets.certify(node.ip, is_server)?;
        write(&directory.join("ca.pem"), &secrets.ca_certificate())?;
        write(&directory.join("node.pem"), &certified.certificate)?;
        write(&directory.join("node-key.pem"), &certified.key)?;

        let installed_at = match self.installed_at {
            Some(directory) => directory.to_owned(),
            None => fs::canonicalize(&directory)?,
        };
        let mut config = self.agent_config(name, node, &installed_at);
        // A separate file, so that it can be kept in a secret store.
        let mut secret_config = json!({
            "encrypt": secrets.gossip_key,
            "acl": { "tokens": { "agent": secrets.agent_token } },
        });
        if is_server {
            secret_config["acl"]["tokens"]["master"] = secrets.root_token.as_str().into();
            config["server"] = true.into();
            config["bootstrap_expect"] = self.servers.len().into();
            // Consul's advice for production: a failed leader is noticed sooner than with the
            // default of 5.
            config["performance"] = json!({ "raft_multiplier": 1 });
        }
        for (file, content) in [("agent.json", config), ("secrets.json", secret_config)] {
            let text = serde_json::to_string_pretty(&content).map_err(CommandError::other)?;
            write(&directory.join(file), &text)?;
        }
        Ok(directory)
    }

    /// The configuration that is common to servers and client agents.
    fn agent_config(&self, name: &str, node: &Node, installed_at: &Path) -> Value {
        let mut nodes = self.servers.iter().chain(self.clients);
        let data_dir = if nodes.all(Node::has_default_ports) {
            self.data_dir.to_owned()
        } else {
            // Several nodes may share this machine.
            self.data_dir.join(name)
        };
        let gossip: Vec<_> = self.servers.iter().map(Node::gossip_address).collect();
        json!({
            "node_name": name,
            "datacenter": self.datacenter,
            "data_dir": data_dir,
            "bind_addr": node.ip,
            "addresses": {
                // Plain HTTP is for local programs only; all others use HTTPS.
                "http": "127.0.0.1",
                "https": node.ip,
                "dns": "127.0.0.1",
            },
            "ports": node.ports(),
            "disable_host_node_id": true,
            "retry_join": gossip,
            "retry_interval": "2s",
            "ca_file": installed_at.join("ca.pem"),
            "cert_file": installed_at.join("node.pem"),
            "key_file": installed_at.join("node-key.pem"),
            "verify_incoming": true,
            "verify_outgoing": true,
            "verify_server_hostname": true,
            "acl": {
                "enabled": true,
                "default_policy": "deny",
                "enable_token_persistence": true,
            },
            "leave_on_terminate": false,
            "disable_remote_exec": true,
        })
    }
}

const SERVICE_POLICY: &str = "\
# The rights of one service: to register itself and to find all services.
service \"NAME\" { policy = \"write\" }
service_prefix \"\" { policy = \"read\" }
node_prefix \"\" { policy = \"read\" }
";

/// Creates a directory that only its owner can enter.
fn create(directory: &Path) -> Result<(), CommandError> {
    fs::create_dir_all(directory)
        .and_then(|()| restrict(directory))
        .map_err(|error| with_path(directory, &error))
}

/// Creates a file that only its owner can read; never overwrites one.
fn write(path: &Path, text: &str) -> Result<(), CommandError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(path)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|error| with_path(path, &error))
}

fn with_path(path: &Path, error: &io::Error) -> CommandError {
    CommandError::Other(format!("{}: {error}", path.display()))
}

#[cfg(unix)]
fn restrict(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn restrict(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(directory: &Path, file: &str) -> Value {
        serde_json::from_str(&fs::read_to_string(directory.join(file)).unwrap()).unwrap()
    }

    #[test]
    fn only_a_server_has_the_root_token_and_takes_part_in_elections() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("cluster");
        let nodes = |texts: &[&str]| -> Vec<Node> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let secrets = Secrets::new("eu").unwrap();
        let cluster = Cluster {
            out: &out,
            servers: &nodes(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
            clients: &nodes(&["10.0.0.4"]),
            datacenter: "eu",
            data_dir: Path::new("/data"),
            installed_at: Some(Path::new("/etc/consul.d")),
        };
        let directories = cluster.write(&secrets).unwrap();
        let names = ["server-1", "server-2", "server-3", "client-1"].map(|name| out.join(name));
        assert_eq!(directories, names);
        let (server, client) = (read(&names[1], "agent.json"), read(&names[3], "agent.json"));
        assert_eq!(
            (&server["server"], &server["bootstrap_expect"]),
            (&json!(true), &json!(3))
        );
        assert_eq!(
            (&client["server"], &client["bootstrap_expect"]),
            (&json!(null), &json!(null))
        );
        let servers = ["10.0.0.1:8301", "10.0.0.2:8301", "10.0.0.3:8301"];
        for (config, name, ip) in [
            (&server, "server-2", "10.0.0.2"),
            (&client, "client-1", "10.0.0.4"),
        ] {
            assert_eq!(config["node_name"], name);
            assert_eq!(config["datacenter"], "eu");
            assert_eq!(config["bind_addr"], ip);
            assert_eq!(config["retry_join"], json!(servers));
            // Each node has its own machine.
            assert_eq!(config["data_dir"], "/data");
            assert_eq!(config["cert_file"], "/etc/consul.d/node.pem");
            assert_eq!(config["addresses"]["http"], "127.0.0.1");
        }
        let tokens = |directory: &Path| read(directory, "secrets.json")["acl"]["tokens"].clone();
        assert_eq!(tokens(&names[1])["master"], secrets.root_token.as_str());
        assert_eq!(tokens(&names[3]).get("master"), None);
        for name in &names {
            assert_eq!(tokens(name)["agent"], secrets.agent_token.as_str());
            assert_eq!(
                read(name, "secrets.json")["encrypt"],
                secrets.gossip_key.as_str()
            );
        }
        let root = fs::read_to_string(out.join("secrets/root-token")).unwrap();
        assert_eq!(root, secrets.root_token);
        // An existing file is never overwritten.
        let error = cluster.write(&secrets).unwrap_err().to_string();
        assert!(error.contains("ca.pem: "), "{error}");
    }

    #[test]
    fn nodes_that_may_share_a_machine_have_data_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let node = |text: &str| [text.parse::<Node>().unwrap()];
        let cluster = Cluster {
            out: dir.path(),
            servers: &node("127.0.0.1:9000"),
            clients: &node("127.0.0.1"),
            datacenter: "dc1",
            data_dir: Path::new("/data"),
            installed_at: None,
        };
        let directories = cluster.write(&Secrets::new("dc1").unwrap()).unwrap();
        for (directory, data) in directories.iter().zip(["/data/server-1", "/data/client-1"]) {
            let config = read(directory, "agent.json");
            assert_eq!(config["data_dir"], data);
            let here = fs::canonicalize(directory).unwrap().join("ca.pem");
            assert_eq!(config["ca_file"], here.display().to_string());
        }
    }
}
