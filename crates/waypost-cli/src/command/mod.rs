//! The subcommands, one room each.

mod agent;
mod asking;
mod completions;
mod deregister;
mod explain;
mod find;
mod gateway;
mod register;
mod registry;
mod service;
mod up;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::Failure;

/// What a command ends with.
pub(crate) type Outcome = Result<ExitCode, Failure>;

#[derive(Subcommand)]
pub(crate) enum Command {
    Up(up::Up),
    Agent(agent::Agent),
    Gateway(gateway::Serve),
    Service(service::Service),
    #[command(subcommand)]
    Registry(registry::Registry),
    /// List the names of all services
    Services(find::Services),
    /// List the instances of a service, whatever their health
    Instances(find::Instances),
    /// Print the URL of an instance chosen by the load balancer
    Resolve(find::Resolve),
    /// Tell what becomes of each instance of a service, and why
    Explain(explain::Explain),
    /// Print the instances of a service now and after each change
    Watch(watch::Watch),
    /// Register an instance
    Register(register::Register),
    /// Take back the registration of an instance
    Deregister(deregister::Deregister),
    /// Print a script that completes this command's words in a shell
    Completions(completions::Completions),
}

impl Command {
    pub(crate) fn run(self) -> Outcome {
        match self {
            Self::Up(up) => serving("info", up.run()),
            Self::Agent(agent) => agent.run(),
            Self::Gateway(gateway) => serving("info", gateway.run()),
            Self::Service(service) => serving("info", service.run()),
            Self::Registry(registry) => registry.run(),
            Self::Services(services) => in_runtime(services.run()),
            Self::Instances(instances) => in_runtime(instances.run()),
            Self::Resolve(resolve) => in_runtime(resolve.run()),
            Self::Explain(explain) => in_runtime(explain.run()),
            Self::Watch(watch) => in_runtime(watch.run()),
            Self::Register(register) => in_runtime(register.run()),
            Self::Deregister(deregister) => in_runtime(deregister.run()),
            Self::Completions(completions) => completions.run(),
        }
    }
}

/// Runs a question to a registry: one thread is plenty.
fn in_runtime(work: impl Future<Output = Outcome>) -> Outcome {
    log_to_stderr("warn");
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Runs something that serves until it is told to end.
fn serving(level: &str, work: impl Future<Output = Outcome>) -> Outcome {
    log_to_stderr(level);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}

/// Logs of this level and above go to stderr, unless `RUST_LOG` says otherwise.
fn log_to_stderr(level: &str) {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Only the first call counts; a second would mean that a command runs another.
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .try_init();
}
