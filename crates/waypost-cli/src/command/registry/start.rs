//! `waypost registry start`

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use waypost::directory::{Directory, DirectoryOptions};
use waypost::integration::shutdown_signal;
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost_runner::free_port;

use crate::command::consul_binary::ConsulBinary;
use crate::command::listen::listen_error;
use crate::error::{CommandError, CommandResult};
use crate::terminal::announce;

/// Run a Consul agent until Ctrl-C
///
/// With --dev, runs a server that needs no configuration and stores nothing. Otherwise, runs an
/// agent with the configuration in a directory, such as one written by `waypost registry config`.
#[derive(Args)]
pub(crate) struct Start {
    /// Run a development server on 127.0.0.1, which keeps its data in memory
    #[arg(long, conflicts_with = "config")]
    dev: bool,
    /// Directory with the configuration of the agent
    #[arg(long, value_name = "DIR", required_unless_present = "dev")]
    config: Option<PathBuf>,
    /// Port of the HTTP API with --dev; the other ports are chosen automatically
    #[arg(long, value_name = "PORT", default_value_t = 8500, requires = "dev")]
    http_port: u16,
}

/// How long the agent may take to elect a leader.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the agent may take to stop after the signal.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

impl Start {
    pub(super) async fn run(self) -> CommandResult {
        let mut shutdown = pin!(shutdown_signal());
        let consul = ConsulBinary::require()?;
        let mut command = Command::new(&consul.path);
        command.arg("agent").kill_on_drop(true);
        match &self.config {
            Some(directory) => configure(&mut command, directory)?,
            None => configure_dev(&mut command, self.http_port)?,
        }
        let mut agent = command.spawn().map_err(|error| {
            CommandError::Other(format!("can't start {}: {error}", consul.path.display()))
        })?;
        if self.dev {
            let address = format!("http://127.0.0.1:{}", self.http_port);
            tokio::select! {
                ready = wait_for_leader(&address) => ready?,
                status = agent.wait() => return Err(exited(status?)),
                () = &mut shutdown => {
                    stop(&mut agent).await?;
                    return Ok(ExitCode::SUCCESS);
                }
            }
            announce(format_args!(
                "registry: {address}  web page: {address}/ui/  (Consul {})",
                consul.version
            ));
        }
        tokio::select! {
            status = agent.wait() => {
                let status = status?;
                if !status.success() {
                    return Err(exited(status));
                }
            }
            () = shutdown => stop(&mut agent).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn configure(command: &mut Command, directory: &Path) -> Result<(), CommandError> {
    if !directory.is_dir() {
        let message = format!("{} is not a directory", directory.display());
        return Err(CommandError::Other(message));
    }
    command.arg("-config-dir").arg(directory);
    Ok(())
}

fn configure_dev(command: &mut Command, http_port: u16) -> Result<(), CommandError> {
    // Checked here because Consul's own message does not name the option.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http_port));
    TcpListener::bind(address).map_err(|error| listen_error(address, &error, "--http-port"))?;
    let [server, serf_lan] = free_ports()?;
    command
        .args(["-dev", "-bind=127.0.0.1", "-client=127.0.0.1"])
        .args(["-log-level=warn", "-dns-port=-1", "-grpc-port=-1"])
        .args(["-serf-wan-port=-1", "-http-port", &http_port.to_string()])
        .args(["-server-port", &server.to_string()])
        .args(["-serf-lan-port", &serf_lan.to_string()]);
    Ok(())
}

/// Two distinct ports that are free for both TCP and UDP, since Consul's gossip uses both.
fn free_ports() -> io::Result<[u16; 2]> {
    let host = Ipv4Addr::LOCALHOST.into();
    let first = free_port(host)?;
    loop {
        let second = free_port(host)?;
        if second != first {
            return Ok([first, second]);
        }
    }
}

/// Waits until the agent lists its services, which it does only once there is a leader.
async fn wait_for_leader(address: &str) -> Result<(), CommandError> {
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(address)?);
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let mut options = DirectoryOptions::default();
        options.lookup_timeout = Duration::from_secs(2);
        let directory = Directory::with_options(Arc::clone(&provider), options);
        match directory.catalog().await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Stops the agent gracefully, or kills it if that takes too long.
async fn stop(agent: &mut Child) -> io::Result<()> {
    // Ctrl-C in the terminal also reaches Consul; a SIGTERM to this process doesn't.
    if let Some(pid) = agent.id().and_then(|pid| Pid::from_raw(pid as i32)) {
        // This fails only if the process has exited.
        let _ = kill_process(pid, Signal::INT);
    }
    if timeout(STOP_TIMEOUT, agent.wait()).await.is_err() {
        agent.kill().await?;
    }
    Ok(())
}

fn exited(status: ExitStatus) -> CommandError {
    CommandError::Other(format!("Consul exited: {status}"))
}
