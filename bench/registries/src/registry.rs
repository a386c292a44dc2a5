//! A registry in a separate process.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use waypost_testkit::free_ports;

use crate::Result;
use crate::client::{Client, TIMEOUT};

/// The registry to measure.
#[derive(Clone, Copy)]
pub(crate) enum Registry {
    Waypost,
    Consul,
}

/// The result of registering instances.
pub(crate) struct Registered {
    pub count: usize,
    /// Registrations per second.
    pub rate: f64,
}

/// A running registry. Dropping this kills the process.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    pub(crate) fn start(registry: Registry) -> Result<Self> {
        let mut command = match registry {
            Registry::Waypost => Command::new(std::env::current_exe()?),
            Registry::Consul => {
                Command::new(std::env::var_os("CONSUL_BIN").map_or("consul".into(), PathBuf::from))
            }
        };
        let [http, serf_lan, serf_wan, server] = free_ports();
        match registry {
            Registry::Waypost => command.args(["serve", &format!("127.0.0.1:{http}")]),
            Registry::Consul => command
                .args([
                    "agent",
                    "-dev",
                    "-log-level=info",
                    "-dns-port=-1",
                    "-grpc-port=-1",
                ])
                .arg(format!("-http-port={http}"))
                .arg(format!("-serf-lan-port={serf_lan}"))
                .arg(format!("-serf-wan-port={serf_wan}"))
                .arg(format!("-server-port={server}"))
                .arg("-hcl=limits { http_max_conns_per_client = 5000 }"),
        };
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, http)),
        })
    }

    pub(crate) async fn connect(&self) -> Result<Client> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match TcpStream::connect(self.address).await {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Client::new(stream));
                }
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Waits until the registry accepts registrations, and returns a client.
    pub(crate) async fn ready(&self) -> Result<Client> {
        let mut client = self.connect().await?;
        client.put("/v1/agent/service/deregister/none", "").await?;
        client
            .wait_for_instances("/v1/health/service/consul?passing", 1)
            .await?;
        Ok(client)
    }

    /// Resident memory, in MiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.ok_or("no VmRSS")?.parse::<f64>()? / 1024.0)
    }

    /// Registers instances over several connections.
    pub(crate) async fn register(
        &self,
        connections: usize,
        numbers: Range<usize>,
    ) -> Result<Registered> {
        self.register_for(Duration::MAX, connections, numbers).await
    }

    /// The same with a time limit.
    pub(crate) async fn register_for(
        &self,
        limit: Duration,
        connections: usize,
        numbers: Range<usize>,
    ) -> Result<Registered> {
        let next = Arc::new(AtomicUsize::new(numbers.start));
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(self.connect().await?);
        }
        let start = Instant::now();
        let tasks = clients.into_iter().map(|mut client| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                let mut count = 0;
                while start.elapsed() < limit {
                    let n = next.fetch_add(1, Relaxed);
                    if n >= numbers.end {
                        break;
                    }
                    client.register(n).await?;
                    count += 1;
                }
                Ok::<usize, Box<dyn Error + Send + Sync>>(count)
            })
        });
        let mut count = 0;
        for task in tasks.collect::<Vec<_>>() {
            count += task.await??;
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        Ok(Registered { count, rate })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // These fail only if the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
