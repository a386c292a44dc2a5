//! The `waypost` command: a thin layer of words over the libraries.

mod command;
mod failure;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::command::Command;

/// Service discovery for microservices: find, call, and be found.
///
/// Start a whole stack with `waypost up`. Look at it with `waypost services`, `waypost instances
/// NAME` and `waypost watch NAME`.
#[derive(Parser)]
#[command(name = "waypost", version, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  something else went wrong
  2  the call, the configuration or a value is not valid
  3  nothing to call: unknown service, no instances, or none healthy
  4  the registry can't be reached, or gives no answer in time
  5  not authorised";

fn main() -> ExitCode {
    // The processes of `up` are supervised by this same program.
    waypost_runner::shim::run_if_asked();
    let cli = Cli::parse();
    match cli.command.run() {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("waypost: {failure}");
            failure.exit_code()
        }
    }
}
