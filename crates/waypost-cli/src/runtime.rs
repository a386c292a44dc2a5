//! Runs the asynchronous commands: sets up logging and the Tokio runtime.

use std::io::IsTerminal;
use std::pin::Pin;

use tracing_subscriber::EnvFilter;

use crate::error::CommandResult;

/// Runs a command that makes a few requests and exits. One thread is enough.
pub(crate) fn run_query(command: impl Future<Output = CommandResult>) -> CommandResult {
    log_to_stderr("warn");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(boxed(command))
}

/// Runs a command that serves until it is stopped, on one thread per core.
pub(crate) fn run_server(command: impl Future<Output = CommandResult>) -> CommandResult {
    log_to_stderr("info");
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(boxed(command))
}

/// Gives all commands one type, so that the executor is compiled once and not once for each.
fn boxed<'a>(
    command: impl Future<Output = CommandResult> + 'a,
) -> Pin<Box<dyn Future<Output = CommandResult> + 'a>> {
    Box::pin(command)
}

/// Logs to stderr, from `level` upwards unless `RUST_LOG` is set.
fn log_to_stderr(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let is_terminal = std::io::stderr().is_terminal();
    // This fails only if a subscriber is installed already; that one is kept.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .try_init();
}
