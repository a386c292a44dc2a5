use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::process::Command;
use tokio::time::{Instant, sleep};
use waypost::integration::shutdown_signal;
use waypost::{ConsulProvider, Directory, DirectoryOptions, Provider};
use waypost_runner::port;

use super::super::Outcome;
use super::consul::Program;
use crate::failure::Failure;

/// Start a Consul agent and stay until Ctrl-C
///
/// With --dev it is one that needs no set-up and forgets everything at its end. Otherwise it runs
/// with the files in a folder, such as `waypost registry config` writes them.
#[derive(Args)]
pub(crate) struct Start {
    /// Development: a server of its own on 127.0.0.1 that keeps nothing
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// The folder with the agent's configuration
    #[arg(long, value_name = "FOLDER", required_unless_present = "dev")]
    config: Option<PathBuf>,
    /// The port of the HTTP API, with --dev; its other ports are free ones
    #[arg(long, default_value_t = 8500, requires = "dev")]
    http_port: u16,
}

/// How long it may take until the agent knows a leader.
const START_WITHIN: Duration = Duration::from_secs(30);

/// How long it may take to end once it was told to.
const END_WITHIN: Duration = Duration::from_secs(15);

impl Start {
    pub(super) async fn run(self) -> Outcome {
        let program = Program::find_or_advise()?;
        let mut command = Command::new(&program.path);
        command.arg("agent").kill_on_drop(true);
        match &self.config {
            Some(folder) => {
                if !folder.is_dir() {
                    let text = format!("{} is no folder", folder.display());
                    return Err(Failure::Other(text));
                }
                command.arg("-config-dir").arg(folder);
            }
            None => {
                let [server, serf_lan] = free_ports()?;
                command
                    .args(["-dev", "-bind=127.0.0.1", "-client=127.0.0.1"])
                    .args(["-log-level=warn", "-dns-port=-1", "-grpc-port=-1"])
                    .args([
                        "-serf-wan-port=-1",
                        "-http-port",
                        &self.http_port.to_string(),
                    ])
                    .args(["-server-port", &server.to_string()])
                    .args(["-serf-lan-port", &serf_lan.to_string()]);
            }
        }
        if self.dev {
            // Bound by nobody else now; Consul itself reports it less clearly.
            TcpListener::bind(("127.0.0.1", self.http_port)).map_err(|error| {
                let port = self.http_port;
                Failure::Other(format!("port {port}: {error}; choose one with --http-port"))
            })?;
        }
        // Ctrl-C reaches the whole group of the terminal; Consul then leaves by itself.
        let mut agent = command.spawn().map_err(|error| {
            Failure::Other(format!(
                "{} can't be started: {error}",
                program.path.display()
            ))
        })?;
        if self.dev {
            let address = format!("http://127.0.0.1:{}", self.http_port);
            tokio::select! {
                ready = answers(&address) => ready?,
                ended = agent.wait() => {
                    return Err(Failure::Other(format!("Consul ended at once: {}", ended?)));
                }
            }
            println!(
                "registry: {address}  page: {address}/ui/  (Consul {})",
                program.version
            );
        }
        tokio::select! {
            ended = agent.wait() => {
                let ended = ended?;
                return match ended.success() {
                    true => Ok(ExitCode::SUCCESS),
                    false => Err(Failure::Other(format!("Consul ended: {ended}"))),
                };
            }
            () = shutdown_signal() => {}
        }
        if let Some(pid) = agent
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid as i32))
        {
            // An error means that it has ended already.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        if tokio::time::timeout(END_WITHIN, agent.wait())
            .await
            .is_err()
        {
            agent.kill().await?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until the registry lists its services, which it does only with a leader.
async fn answers(address: &str) -> Result<(), Failure> {
    let provider: std::sync::Arc<dyn Provider> = std::sync::Arc::new(ConsulProvider::new(address)?);
    let deadline = Instant::now() + START_WITHIN;
    loop {
        let mut options = DirectoryOptions::default();
        options.lookup_timeout = Duration::from_secs(2);
        let directory = Directory::with_options(std::sync::Arc::clone(&provider), options);
        match directory.catalog().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Different ones, for TCP and for UDP: Consul's gossip speaks both.
fn free_ports() -> Result<[u16; 2], Failure> {
    let host = Ipv4Addr::LOCALHOST.into();
    let first = port::free(host)?;
    loop {
        let second = port::free(host)?;
        if second != first {
            return Ok([first, second]);
        }
    }
}
