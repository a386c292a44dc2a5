use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::Consul;

/// Three servers and a client agent, as in production, all on 127.0.0.1.
#[derive(Debug)]
pub struct Cluster {
    servers: Vec<Consul>,
    client: Consul,
}

impl Cluster {
    /// Starts them and waits until the client agent sees a leader.
    ///
    /// # Panics
    /// If there is no Consul, or no leader.
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
            server.begin().await;
        }
        client.begin().await;
        client.wait_for_leader().await;
        Self { servers, client }
    }

    /// The agent that a service on this machine would ask.
    pub fn client(&self) -> &Consul {
        &self.client
    }

    /// Kills the leader and gives its number.
    ///
    /// # Panics
    /// If there is none.
    pub async fn kill_leader(&mut self) -> usize {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(leader) = self.client.leader().await {
                let found = self
                    .servers
                    .iter()
                    .position(|s| s.server_address() == leader);
                if let Some(number) = found {
                    self.servers[number].kill().await;
                    return number;
                }
            }
            assert!(Instant::now() < deadline, "no leader to kill");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Starts a server that was killed.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn revive(&mut self, number: usize) {
        self.servers[number].begin().await;
        self.servers[number].wait_for_leader().await;
    }
}
