//! Runs a real Consul server for comparison.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use waypost_testkit::free_ports;

use crate::raw_http::Request;

const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A single Consul server. It isn't in `-dev` mode, which indents JSON. Dropping this stops it.
pub(crate) struct Consul {
    process: Child,
    pub http: SocketAddr,
    pub dns: SocketAddr,
    pub server_port: u16,
    pub serf_lan_port: u16,
    pub serf_wan_port: u16,
    data: TempDir,
}

impl Consul {
    pub(crate) async fn start(node: &str) -> Self {
        Self::start_as(node, None).await
    }

    /// Starts a server with ACLs that allows nothing without this token.
    pub(crate) async fn start_with_token(node: &str, token: &str) -> Self {
        Self::start_as(node, Some(token)).await
    }

    async fn start_as(node: &str, token: Option<&str>) -> Self {
        let data = TempDir::new().unwrap();
        let [http, dns, server_port, serf_lan_port, serf_wan_port] = free_ports();
        let log = std::fs::File::create(data.path().join("log")).unwrap();
        let process = Command::new(find())
            .args(["agent", "-server", "-bootstrap-expect=1", "-node", node])
            .args([
                "-bind=127.0.0.1",
                "-client=127.0.0.1",
                "-grpc-port=-1",
                "-ui",
            ])
            .arg(format!("-http-port={http}"))
            .arg(format!("-dns-port={dns}"))
            .arg(format!("-server-port={server_port}"))
            .arg(format!("-serf-lan-port={serf_lan_port}"))
            .arg(format!("-serf-wan-port={serf_wan_port}"))
            .arg("-hcl=performance { raft_multiplier = 1 }")
            .args(token.map(|token| {
                format!(
                    "-hcl=acl {{ enabled = true, default_policy = \"deny\", \
                     tokens {{ master = {token:?}, agent = {token:?} }} }}"
                )
            }))
            .arg("-data-dir")
            .arg(data.path().join("data"))
            .stdout(log)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let consul = Self {
            process,
            http: SocketAddr::from((Ipv4Addr::LOCALHOST, http)),
            dns: SocketAddr::from((Ipv4Addr::LOCALHOST, dns)),
            server_port,
            serf_lan_port,
            serf_wan_port,
            data,
        };
        consul.wait_until_ready(token).await;
        consul
    }

    /// Waits until the server has registered itself completely and is healthy.
    async fn wait_until_ready(&self, token: Option<&str>) {
        let deadline = Instant::now() + START_TIMEOUT;
        let mut health = Request::new("GET", "/v1/health/service/consul?passing", "");
        if let Some(token) = token {
            let header = ("X-Consul-Token".to_owned(), token.to_owned());
            health.headers.push(header);
        }
        loop {
            if let Ok(response) = health.send(self.http).await
                && response.text().contains("serfHealth")
                && response.text().contains("consul-network-segment")
            {
                return;
            }
            let log = self.data.path().join("log");
            assert!(
                Instant::now() < deadline,
                "Consul isn't ready after {START_TIMEOUT:?}. Its log:\n{}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        // These fail only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The path in `$CONSUL_BIN`, or `consul` in `$PATH`.
pub(crate) fn find() -> PathBuf {
    if let Some(path) = std::env::var_os("CONSUL_BIN") {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join("consul"));
    candidates
        .find(|file| file.is_file())
        .expect("no Consul found in $CONSUL_BIN or $PATH. Run `cargo xtask setup`.")
}
