//! The `waypost` command: a thin command line over the libraries.

#![warn(clippy::print_stdout, clippy::print_stderr)] // see `terminal`

mod command;
mod completion;
mod error;
mod output;
mod random;
mod runtime;
mod style;
mod suggest;
mod terminal;
mod usage_error;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{CommandFactory, FromArgMatches, Parser};
use clap_complete::CompleteEnv;

use crate::command::Command;
use crate::error::CommandError;
use crate::runtime::Verbosity;
use crate::terminal::print_error;

/// Service discovery for microservices
///
/// `waypost up` starts a complete local stack. `waypost services`, `waypost instances NAME` and
/// `waypost watch NAME` show what is registered.
#[derive(Parser)]
#[command(name = "waypost", version, after_long_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    verbosity: Verbosity,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Environment variables (`waypost config show` lists all of them, with their values):
  SERVICE_DISCOVERY_PROVIDER             env, static, consul, dns or kubernetes
  CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN    the registry, and the token for it
  SERVICE_REGISTRY_HOST, SERVICE_REGISTRY_PORT
                                         the registry, if CONSUL_HTTP_ADDR is not set
  SERVICE_DISCOVERY_CONFIG_FILE          the file of services for the provider static
  KUBECONFIG, KUBERNETES_NAMESPACE       the cluster and the namespace for kubernetes
  RUST_LOG, NO_COLOR                     what is logged; no colours

Exit codes:
  0  success
  1  any other error
  2  invalid arguments, configuration or environment variables
  3  nothing found: unknown service, no instances, none healthy, or nothing to deregister
  4  registry unreachable or timed out
  5  not authorised by the registry";

fn main() -> ExitCode {
    // Must come first: `waypost up` starts this same program as the shim of each process.
    waypost_runner::shim::run_if_requested();
    CompleteEnv::with_factory(Cli::command)
        .var(completion::VARIABLE)
        .complete();
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return usage_error::report(error, &Cli::command()),
    };
    runtime::set_verbosity(cli.verbosity);
    match cli.command.run::<Cli>() {
        Ok(code) => code,
        // Stdout was closed by its reader, such as `head`.
        Err(CommandError::StdoutClosed) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            error.exit_code()
        }
    }
}

/// Parses the arguments.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = ignore_unset_variables(Cli::command())
        .try_get_matches_from(arguments)
        .map_err(|error| error.with_cmd(&Cli::command()))?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut Cli::command()))
}

/// Treats a variable that is set but empty as not set, as everywhere in Waypost, and so a service link:
/// Kubernetes sets `<SERVICE>_PORT` to a URL.
fn ignore_unset_variables(command: clap::Command) -> clap::Command {
    let is_unset = |name: &OsStr| {
        let Some(value) = std::env::var_os(name) else {
            return false;
        };
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        let is_link = || {
            ["tcp://", "udp://", "sctp://"]
                .iter()
                .any(|link| value.starts_with(link))
        };
        value.is_empty() || (name.ends_with("_PORT") && is_link())
    };
    command
        .mut_args(|argument| match argument.get_env() {
            Some(name) if is_unset(name) => argument.env(Resettable::Reset),
            _ => argument,
        })
        .mut_subcommands(ignore_unset_variables)
}
