//! Runs nginx, haproxy, a minimal hyper proxy and Waypost's gateway in front of one origin in turn, and
//! prints the CPU time per request.
//!
//! CPU is the user and system time of the proxy's own processes, from `/proc/PID/stat`, so it hardly
//! depends on what else the machine does. Needs nginx, haproxy, wrk and, with `--instructions`,
//! valgrind.
//!
//! Usage: `gateway [--seconds N] [--rounds N] [--instructions] [NAME…]`

mod instructions;
mod proxies;
mod wrk;

use std::path::Path;
use std::process::ExitCode;

use crate::proxies::{Origin, Proxy};

fn main() -> ExitCode {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok());
        match argument.as_str() {
            "--seconds" => options.seconds = number().expect("a number of seconds"),
            "--rounds" => options.rounds = number().expect("a number of rounds"),
            "--instructions" => options.instructions = true,
            _ => options.only.push(argument),
        }
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gateway: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    seconds: u32,
    rounds: u32,
    instructions: bool,
    /// The names of the proxies to run; all if there are none.
    only: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: 5,
            rounds: 3,
            instructions: false,
            only: Vec::new(),
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let origin = Origin::start(folder.path())?;
    let names = proxies::NAMES
        .iter()
        .filter(|name| options.only.is_empty() || options.only.iter().any(|only| only == *name));
    if options.instructions {
        println!("| proxy | instructions per request |\n|---|---|");
        for name in ["hyper", "waypost", "waypost without log"] {
            let count = instructions::per_request(name, &origin, folder.path())?;
            println!("| {name} | {count} |");
        }
        return Ok(());
    }
    println!("| proxy | CPU per request | requests/s | p50 | p99 |\n|---|---|---|---|---|");
    // In turn, so that other load on the machine doesn't affect only one proxy.
    for _ in 0..options.rounds {
        for name in names.clone() {
            println!(
                "| {name} | {} |",
                measure(name, &origin, folder.path(), options)?
            );
        }
    }
    Ok(())
}

fn measure(
    name: &str,
    origin: &Origin,
    folder: &Path,
    options: &Options,
) -> Result<String, String> {
    let proxy = Proxy::start(name, origin, folder)?;
    wrk::run(&proxy.url(), 1)?;
    let before = proxy.cpu_micros()?;
    let result = wrk::run(&proxy.url(), options.seconds)?;
    let cpu = proxy.cpu_micros()? - before;
    if result.failed > 0 {
        return Err(format!("{name}: {} requests failed", result.failed));
    }
    Ok(format!(
        "{:.1} us | {:.0} | {} | {}",
        cpu / result.requests as f64,
        result.requests as f64 / f64::from(options.seconds),
        result.median,
        result.p99
    ))
}
