//! The `waypost` command: a thin command line over the libraries.

mod command;
mod error;
mod output;
mod runtime;

use std::process::ExitCode;

use clap::Parser;

use crate::command::Command;

/// Service discovery for microservices
///
/// `waypost up` starts a complete local stack. `waypost services`, `waypost instances NAME` and
/// `waypost watch NAME` show what is registered.
#[derive(Parser)]
#[command(name = "waypost", version, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  success
  1  any other error
  2  invalid arguments, configuration or environment variables
  3  no instance to call: unknown service, no instances, or none healthy
  4  registry unreachable or timed out
  5  not authorised by the registry";

fn main() -> ExitCode {
    // Must come first: `waypost up` starts this same program as the shim of each process.
    waypost_runner::shim::run_if_requested();
    match Cli::parse().command.run::<Cli>() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("waypost: {error}");
            error.exit_code()
        }
    }
}
