//! Development tasks: checks, tests, and the programs that the tests need.
//!
//! Run as `cargo xtask COMMAND`. It has no dependencies, so that it builds in a second.

mod checks;
mod commands;
mod dist;
mod minimal_versions;
mod packages;
mod public_api;
mod python;
mod shell;
mod test_environment;
mod tools;

use std::process::ExitCode;

const HELP: &str = "\
Development tasks.

Usage: cargo xtask COMMAND

Commands:
  setup             Find or fetch the programs that the tests need: a real Consul, clients of it,
                    a browser and its driver
  fmt [--check]     Format the code, or only check the format
  lint              Run clippy on all targets, and the type checker on the scripts of the dashboard
                    (if npm is installed); warnings are errors
  features          Run clippy on each library with each feature alone and with none
  minimal-versions  Check with the lowest versions of dependencies that the manifests allow
  package           Build the archives for crates.io, without compiling them
  public-api [--update]
                    Check the listings of the public API in public-api/, or write them
  docs              Build the API documentation; warnings are errors
  commands [--update]
                    Check the reference of commands in docs/commands.md, or write it
  test [ARGS]       Run setup, then all tests, those of the Python package last; ARGS are arguments
                    of `cargo test`, for example: cargo xtask test -p waypost -- weighted
  simulate [ARGS]   Run the system on a simulated clock through 10,000 schedules of faults; ARGS
                    choose others: --schedules N, --first SEED, or --seed SEED to replay one
  fuzz INPUTS [NAME...]
                    Call each parser of external input, or those whose tests have these names, with this
                    many mutated inputs; WAYPOST_FUZZ_SEED selects other mutations
  test-python [ARGS]
                    Run the tests of the Python package alone; ARGS are arguments of pytest
  dist [--program FILE] [--out DIRECTORY]
                    Build the release archive for this machine with completions and man pages, a Debian
                    package if dpkg-deb is installed, and their checksums, in target/dist
  wheel             Build a wheel of the Python package for this machine, in target/wheels
  ci                Run all checks that must pass before a merge: fmt --check, package, lint, features,
                    public-api (with the toolchain that it needs), docs, simulate, test, commands

Environment:
  CONSUL_BIN            a Consul of 1.8 or newer, to use instead of fetching one
  WAYPOST_PROMETHEUS    a Prometheus that supports consul_sd_configs
  WAYPOST_HAPROXY, WAYPOST_DIG, WAYPOST_PYTHON, WAYPOST_NODE, WAYPOST_NPM
                        these programs, where they aren't on PATH
  WAYPOST_AXE           the file axe.min.js of axe-core
  WAYPOST_CHROMIUM      a Chromium or Chrome to use
  WAYPOST_CHROMEDRIVER  the driver for that Chromium
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match (command, rest) {
        ("setup", []) => tools::setup().map(|tools| print!("{tools}")),
        ("fmt", []) => checks::format(),
        ("fmt", [flag]) if flag == "--check" => checks::check_format(),
        ("lint", []) => checks::lint(),
        ("features", []) => checks::features(),
        ("minimal-versions", []) => minimal_versions::check(),
        ("package", []) => checks::package(),
        ("public-api", []) => public_api::check(),
        ("public-api", [flag]) if flag == "--update" => public_api::update(),
        ("docs", []) => checks::docs(),
        ("commands", []) => commands::check(),
        ("commands", [flag]) if flag == "--update" => commands::update(),
        ("test", args) => checks::test(args),
        ("simulate", args) => checks::simulate(args),
        ("fuzz", [inputs, names @ ..]) => checks::fuzz(inputs, names),
        ("test-python", args) => checks::test_python(args),
        ("dist", args) => dist::build(args).map(|files| {
            for file in files {
                println!("{}", file.display());
            }
        }),
        ("wheel", []) => python::wheel().map(|wheel| println!("{}", wheel.display())),
        ("ci", []) => checks::ci(),
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
