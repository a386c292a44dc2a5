//! A Consul cluster.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::consul::Consul;

/// Three servers and a client agent, all on 127.0.0.1.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Consul>,
    client: Consul,
}

impl Cluster {
    /// Starts the cluster, and waits until the client agent knows a leader.
    ///
    /// # Panics
    /// If Consul can't be started, or no leader is elected.
    pub async fn start() -> Self {
        let raft = json!({ "raft_multiplier": 1 });
        let mut servers: Vec<_> = (1..=3)
            .map(|number| {
                let config = json!({
                    "server": true,
                    "bootstrap_expect": 3,
                    "node_name": format!("server-{number}"),
                    "performance": raft,
                    "disable_host_node_id": true,
                });
                Consul::prepare(config, false)
            })
            .collect();
        let gossip: Vec<_> = servers.iter().map(Consul::gossip_address).collect();
        let client = json!({
            "node_name": "client",
            "disable_host_node_id": true,
            "retry_join": gossip,
            "retry_interval": "1s",
        });
        let mut client = Consul::prepare(client, false);
        for server in &mut servers {
            server.add(json!({ "retry_join": gossip, "retry_interval": "1s" }));
            server.spawn().await;
        }
        client.spawn().await;
        client.wait_for_leader().await;
        Self { servers, client }
    }

    /// The client agent, which services use.
    pub fn client(&self) -> &Consul {
        &self.client
    }

    /// Kills the leader and returns its index.
    ///
    /// # Panics
    /// If there is no leader.
    pub async fn kill_leader(&mut self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(leader) = self.client.leader().await {
                let found = self
                    .servers
                    .iter()
                    .position(|server| server.server_address() == leader);
                if let Some(index) = found {
                    self.servers[index].kill().await;
                    return index;
                }
            }
            assert!(Instant::now() < deadline, "no leader to kill");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a server again that was killed, and waits until it knows a leader.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn restart(&mut self, index: usize) {
        self.servers[index].restart().await;
    }
}
