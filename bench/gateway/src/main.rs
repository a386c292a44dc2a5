//! Runs nginx, haproxy, a minimal hyper proxy and Waypost's gateway in front of one origin in turn.
//!
//! CPU is the user and system time of the proxy's own processes, from `/proc/PID/stat`, so it hardly
//! depends on what else the machine does. Needs nginx, haproxy and wrk; some commands need valgrind or
//! Consul.
//!
//! ```text
//! gateway [cpu] [--seconds N] [--rounds N] [NAME…]   CPU time per request, p50 and p99
//! gateway cores [--seconds N] [--rounds N]           the same for one and for two workers
//! gateway scaling [--seconds N] [--rounds N]         requests per second of two limited workers against one
//! gateway latency [--rate N] [--seconds N] [--rounds N]
//!                                                    p50 and p99 when saturated, or at a rate per second
//! gateway idle [tls] [--connections N]               memory of idle connections
//! gateway bodies [--rounds N]                        CPU time of 10 MB in each direction
//! gateway streaming [--seconds N]                    chunks as they arrive, against direct
//! gateway outages [--seconds N]                      failed requests while instances and Consul restart
//! gateway instructions                               instructions per request
//! gateway check FILE                                 compares these with a report; fails if they differ
//! ```

mod bodies;
mod idle;
mod instructions;
mod latency;
mod load;
mod outages;
mod paced;
mod proxies;
mod scaling;
mod streaming;
mod wrk;

use std::path::Path;
use std::process::ExitCode;

use crate::proxies::{NAMES, Origin, Proxy, TWO_WORKERS};

fn main() -> ExitCode {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok());
        match argument.as_str() {
            "--seconds" => options.seconds = Some(number().expect("a number of seconds")),
            "--rounds" => options.rounds = number().expect("a number of rounds"),
            "--rate" => options.rate = Some(number().expect("a number of requests per second")),
            "--connections" => options.connections = number().expect("a number of connections"),
            _ => options.words.push(argument),
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
    seconds: Option<u32>,
    rounds: u32,
    rate: Option<u32>,
    connections: u32,
    /// The command and its arguments.
    words: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seconds: None,
            rounds: 3,
            rate: None,
            connections: 5000,
            words: Vec::new(),
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let folder = folder.path();
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["cores"] => cpu(&["waypost", TWO_WORKERS], options, folder),
        ["scaling"] => scaling::run(options.rounds, options.seconds.unwrap_or(3), folder),
        ["latency"] => latency::run(
            options.rounds,
            options.seconds.unwrap_or(2),
            options.rate,
            folder,
        ),
        ["idle"] => idle::run(options.connections, false, folder),
        ["idle", "tls"] => idle::run(options.connections, true, folder),
        ["bodies"] => bodies::run(options.rounds, folder),
        ["streaming"] => streaming::run(options.seconds, folder),
        ["outages"] => outages::run(options.seconds.unwrap_or(60), folder),
        ["instructions"] => {
            let origin = Origin::start(folder)?;
            println!("| proxy | instructions per request |\n|---|---|");
            for name in instructions::PROGRAMS {
                let count = instructions::per_request(name, &origin, folder)?;
                println!("| {name} | {count} |");
            }
            Ok(())
        }
        ["check", file] => {
            let report =
                std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            let differences = instructions::differences(&report, &Origin::start(folder)?, folder)?;
            if differences.is_empty() {
                Ok(())
            } else {
                Err(differences.join("\n"))
            }
        }
        [] | ["cpu"] => cpu(&NAMES, options, folder),
        ["cpu", only @ ..] => cpu(only, options, folder),
        _ => Err(format!("unknown command: {}", words.join(" "))),
    }
}

/// The CPU time per request of each proxy.
fn cpu(names: &[&str], options: &Options, folder: &Path) -> Result<(), String> {
    let origin = Origin::start(folder)?;
    let seconds = options.seconds.unwrap_or(5);
    println!("| proxy | CPU per request | requests/s | p50 | p99 |\n|---|---|---|---|---|");
    // In turn, so that other load on the machine doesn't affect only one proxy.
    for _ in 0..options.rounds {
        for name in names {
            let proxy = Proxy::start(name, origin.port, folder)?;
            println!("| {name} | {} |", measure(name, &proxy, seconds)?);
        }
    }
    Ok(())
}

fn measure(name: &str, proxy: &Proxy, seconds: u32) -> Result<String, String> {
    wrk::run(&proxy.url(), 1)?;
    let before = proxy.cpu_micros()?;
    let result = wrk::run(&proxy.url(), seconds)?;
    let cpu = proxy.cpu_micros()? - before;
    if result.failed > 0 {
        return Err(format!("{name}: {} requests failed", result.failed));
    }
    Ok(format!(
        "{:.1} us | {:.0} | {} | {}",
        cpu / result.requests as f64,
        result.requests as f64 / f64::from(seconds),
        result.median,
        result.p99
    ))
}
