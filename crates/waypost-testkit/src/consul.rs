use std::{path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::free_ports;

/// A real `consul agent -dev` on ports of its own.
#[derive(Debug)]
pub struct Consul {
    ports: [u16; 4],
    process: Option<Child>,
}

/// How long it may take until it has a leader; usually it takes 0.3 s.
const START_WITHIN: Duration = Duration::from_secs(20);

impl Consul {
    /// Starts one and waits until it has a leader.
    ///
    /// # Panics
    /// If there is no Consul, or it doesn't start.
    pub async fn start() -> Self {
        let mut consul = Self {
            ports: free_ports(),
            process: None,
        };
        consul.restart().await;
        consul
    }

    /// `127.0.0.1:port`, where its HTTP API is.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// The URL of a path of its HTTP API.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Kills it. In development mode it remembers nothing.
    pub async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // An error means that it has ended by itself.
            let _ = process.kill().await;
        }
    }

    /// Starts it again at the same address, with nothing remembered.
    ///
    /// # Panics
    /// If it doesn't start.
    pub async fn restart(&mut self) {
        self.kill().await;
        let [http, server, serf_lan, serf_wan] = self.ports.map(|port| port.to_string());
        let process = Command::new(binary())
            .args(["agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1"])
            .args(["-http-port", &http, "-server-port", &server])
            .args(["-serf-lan-port", &serf_lan, "-serf-wan-port", &serf_wan])
            .args(["-dns-port=-1", "-grpc-port=-1", "-log-level=err"])
            .args(["-hcl", "enable_script_checks = true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        self.process = Some(process.unwrap_or_else(|error| {
            panic!("Consul can't be started ({error}); run `cargo xtask setup`")
        }));
        self.wait_for_leader().await;
    }

    async fn wait_for_leader(&mut self) {
        // The one thing a library must not do for a program, a test's helper may: choose the
        // cryptography of the whole process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let leader = self.url("/v1/status/leader");
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if let Ok(reply) = reqwest::get(&leader).await
                && reply.status().is_success()
                && reply
                    .text()
                    .await
                    .is_ok_and(|leader| leader.trim().len() > 2)
            {
                return;
            }
            let ended = self
                .process
                .as_mut()
                .and_then(|process| process.try_wait().ok().flatten());
            assert!(ended.is_none(), "Consul ended at once: {ended:?}");
            assert!(
                Instant::now() < deadline,
                "Consul has no leader after {START_WITHIN:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// `cargo xtask test` names it; at a desk the one on `PATH` will do.
fn binary() -> PathBuf {
    std::env::var_os("CONSUL_BIN").map_or_else(|| "consul".into(), PathBuf::from)
}
