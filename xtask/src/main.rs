//! The project's own chores: test, lint, docs and the tools they need.
//!
//! Run as `cargo xtask COMMAND`. It needs nothing but the standard library, so that it builds in
//! a moment on a fresh clone.

mod chores;
mod shell;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
The project's chores.

Usage: cargo xtask COMMAND

Commands:
  setup          Find or fetch what the tests need: a real Consul and clients of it,
                 a browser and its driver
  fmt            Format the code [--check: only look]
  lint           Clippy on every target; a warning is an error
  docs           Build the API documentation; a warning is an error
  test [ARGS]    setup, then the tests of the whole workspace, doctests included;
                 ARGS go to `cargo test`, for example: cargo xtask test -p waypost -- weighted
  ci             fmt --check, lint, docs, test: what has to be green before a merge

Environment:
  CONSUL_BIN            a Consul of 1.8 or newer, to use instead of fetching one
  WAYPOST_PROMETHEUS    a Prometheus that knows consul_sd_configs
  WAYPOST_HAPROXY, WAYPOST_DIG, WAYPOST_PYTHON, WAYPOST_NODE, WAYPOST_NPM
                        these programs, where they aren't on PATH
  WAYPOST_CHROMIUM      a Chromium or Chrome to use
  WAYPOST_CHROMEDRIVER  the driver that belongs to it
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match (command, rest) {
        ("setup", []) => tools::setup().map(|tools| print!("{tools}")),
        ("fmt", []) => chores::format(),
        ("fmt", [flag]) if flag == "--check" => chores::check_format(),
        ("lint", []) => chores::lint(),
        ("docs", []) => chores::docs(),
        ("test", args) => chores::test(args),
        ("ci", []) => chores::ci(),
        ("help" | "-h" | "--help", _) => {
            print!("{HELP}");
            Ok(())
        }
        _ => Err(format!("unknown command `{}`\n\n{HELP}", args.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("xtask: {reason}");
            ExitCode::FAILURE
        }
    }
}
