//! Failed requests at a constant rate while instances are restarted one after the other, and while Consul
//! is killed. Needs Consul at `CONSUL_BIN`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::load::{Load, Outcome};
use crate::proxies::{self, Process};

const PER_SECOND: u32 = 1000;
/// The time between two events.
const PAUSE: Duration = Duration::from_secs(5);

/// `seconds` is how long Consul stays down.
pub(crate) fn run(seconds: u32, folder: &Path) -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    runtime.block_on(measure(seconds, folder))
}

async fn measure(seconds: u32, folder: &Path) -> Result<(), String> {
    let ports = ConsulPorts::free()?;
    let mut consul = ports.start(folder)?;
    proxies::wait_for(ports.http)?;
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(instance(ports.http)?);
    }
    let port = proxies::free_port()?;
    let registry = format!("consul:{}", ports.http);
    let _gateway = Process::start(&mut proxies::program("waypost", port, &registry, folder)?)?;
    proxies::wait_for(port)?;
    let url = format!("http://127.0.0.1:{port}/origin/");
    wait_for_instances(ports.http, 3).await?;
    // Until the gateway has a route.
    tokio::time::sleep(PAUSE).await;

    println!("| event | requests | failed | slowest |\n|---|---|---|---|");
    let load = Load::start(url.clone(), PER_SECOND);
    for old in &mut instances {
        tokio::time::sleep(PAUSE).await;
        let mut ending = std::mem::replace(old, instance(ports.http)?);
        // In a thread, since it waits for the end.
        tokio::task::spawn_blocking(move || ending.terminate())
            .await
            .map_err(|error| error.to_string())?;
    }
    tokio::time::sleep(PAUSE).await;
    print(
        "three instances restarted one after the other",
        load.end().await,
    );

    let load = Load::start(url, PER_SECOND);
    tokio::time::sleep(PAUSE).await;
    consul.kill();
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let _consul = ports.start(folder)?;
    tokio::time::sleep(2 * PAUSE).await;
    print(&format!("Consul killed for {seconds} s"), load.end().await);
    Ok(())
}

fn print(event: &str, outcome: Outcome) {
    let Outcome {
        sent,
        failed,
        reasons,
        slowest,
    } = outcome;
    println!(
        "| {event} | {sent} | {failed} | {} ms |",
        slowest.as_millis()
    );
    for reason in reasons {
        println!("  {reason}");
    }
}

fn instance(consul: u16) -> Result<Process, String> {
    let port = proxies::free_port()?;
    let service = proxies::sibling("service")?;
    let process =
        Process::start(Command::new(service).args([port.to_string(), consul.to_string()]))?;
    proxies::wait_for(port)?;
    Ok(process)
}

/// Waits until Consul lists a number of healthy instances.
async fn wait_for_instances(consul: u16, count: usize) -> Result<(), String> {
    let client = waypost::ServiceDiscoveryClient::builder().registry("127.0.0.1", consul);
    let client = client.build().map_err(|error| error.to_string())?;
    for _ in 0..300 {
        if let Ok(found) = client.discover_service("origin").await
            && found.len() >= count
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{count} instances aren't registered after 30 s"))
}

struct ConsulPorts {
    http: u16,
    server: u16,
    lan: u16,
    wan: u16,
}

impl ConsulPorts {
    fn free() -> Result<Self, String> {
        Ok(Self {
            http: proxies::free_port()?,
            server: proxies::free_port()?,
            lan: proxies::free_port()?,
            wan: proxies::free_port()?,
        })
    }

    /// Starts a server that keeps its data in the folder.
    fn start(&self, folder: &Path) -> Result<Process, String> {
        let program = std::env::var("CONSUL_BIN").unwrap_or_else(|_| "consul".to_owned());
        let port = |name: &str, port: i32| format!("-{name}-port={port}");
        let mut command = Command::new(program);
        command
            .args(["agent", "-server", "-bootstrap-expect=1", "-bind=127.0.0.1"])
            .arg(format!("-data-dir={}", folder.join("consul").display()))
            .args([
                port("http", self.http.into()),
                port("server", self.server.into()),
            ])
            .args([
                port("serf-lan", self.lan.into()),
                port("serf-wan", self.wan.into()),
            ])
            .args([port("dns", -1), port("grpc", -1)]);
        Process::start(&mut command)
    }
}
