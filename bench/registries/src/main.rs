//! Measures the embedded registry and `consul agent -dev` alternately on this machine, and prints a Markdown
//! table.
//!
//! ```text
//! cargo run --release --manifest-path bench/Cargo.toml --bin registries -- --to docs/registry-benchmarks.md
//! ```
//!
//! It takes about six minutes on an idle machine. After twelve minutes it stops and prints the results
//! so far. `--quick` omits the measurements with up to 10,000 instances, which take Consul minutes.
//! It requires Linux (memory is read from `/proc`) and `consul` in `$PATH` or `$CONSUL_BIN`. The
//! client is this program, with one thread, on the same processors.

mod client;
mod measure;
mod registry;

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;
use waypost_agent::Agent;

use measure::Figures;
use registry::Registry;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// The limit for all measurements.
const TIMEOUT: Duration = Duration::from_secs(12 * 60);

/// The number of measurements, except for those with up to 10,000 instances. The median is reported.
const ROUNDS: usize = 3;

const REGISTRIES: [Registry; 2] = [Registry::Waypost, Registry::Consul];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut quick = false;
    let mut to = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--to" => {
                to = Some(PathBuf::from(
                    arguments.next().ok_or("--to requires a file")?,
                ))
            }
            // The embedded registry runs in a separate process, started by `Process::start`.
            "serve" => return serve(&arguments.next().ok_or("serve requires an address")?).await,
            other => {
                return Err(
                    format!("unknown argument {other}, expected --quick or --to FILE").into(),
                );
            }
        }
    }
    let mut rounds = Vec::new();
    let done = timeout(TIMEOUT, compare(quick, &mut rounds)).await;
    // Results before a failure are still useful.
    let text = table(&medians(&rounds), quick)?;
    match to {
        Some(file) => std::fs::write(file, text)?,
        None => print!("{text}"),
    }
    done.map_err(|_| {
        format!(
            "not all measurements finished in {} minutes",
            TIMEOUT.as_secs() / 60
        )
    })?
}

/// Runs the embedded registry until the process is killed.
async fn serve(address: &str) -> Result<()> {
    let _agent = Agent::builder()
        .http(address.parse()?)
        .dns(None)
        .start()
        .await?;
    std::future::pending().await
}

/// The results of one round: of this registry and of Consul.
type Round = [Figures; 2];

/// Each round measures both registries, so that the load of the machine affects both.
async fn compare(quick: bool, rounds: &mut Vec<Round>) -> Result<()> {
    for round in 0..ROUNDS {
        let figures = next(rounds);
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            measure::fast(REGISTRIES[side], &mut figures[side]).await?;
        }
    }
    if !quick {
        let figures = next(rounds);
        for side in [0, 1] {
            measure::slow(REGISTRIES[side], &mut figures[side]).await?;
        }
    }
    Ok(())
}

fn next(rounds: &mut Vec<Round>) -> &mut Round {
    rounds.push(Round::default());
    let last = rounds.len() - 1;
    &mut rounds[last]
}

/// The medians of both registries, for everything that was measured of both.
fn medians(rounds: &[Round]) -> Vec<(&'static str, [f64; 2])> {
    let mut names = Vec::new();
    let mut values: HashMap<&str, [Vec<f64>; 2]> = HashMap::new();
    for round in rounds {
        for (side, figures) in round.iter().enumerate() {
            for (what, figure) in figures.iter() {
                if !names.contains(&what) {
                    names.push(what);
                }
                values.entry(what).or_default()[side].push(figure);
            }
        }
    }
    let of_both = names.into_iter().filter_map(|what| {
        let mut sides = values.remove(what)?;
        let both = sides.iter().all(|side| !side.is_empty());
        both.then(|| (what, [0, 1].map(|side| measure::median(&mut sides[side]))))
    });
    of_both.collect()
}

fn table(rows: &[(&str, [f64; 2])], quick: bool) -> Result<String> {
    let mut text = String::new();
    let options = if quick { " -- --quick" } else { "" };
    writeln!(
        text,
        "# The embedded registry compared with Consul\n\n\
         Made by `cargo run --release --manifest-path bench/Cargo.toml --bin registries{options}`: this\n\
         registry          and `consul agent -dev` 1.8.7 alternately, on the same machine ({} processors), with the\n\
         client on the same processors. Each figure is the median of {ROUNDS} rounds; those with\n\
         1,000 to 10,000 instances are from one round. The absolute figures depend on the machine,\n\
         so compare the ratios.\n",
        std::thread::available_parallelism()?
    )?;
    writeln!(
        text,
        "| what | Waypost | Consul | better by |\n| --- | ---: | ---: | ---: |"
    )?;
    for (what, [ours, theirs]) in rows {
        let better = if what.ends_with("/s") {
            ours / theirs
        } else {
            theirs / ours
        };
        let (ours, theirs) = (measure::show(*ours), measure::show(*theirs));
        writeln!(text, "| {what} | {ours} | {theirs} | {better:.1} × |")?;
    }
    writeln!(
        text,
        "\nWith one connection the embedded registry mostly waits for the operating system to wake it:\n\
         requests for `/v1/status/leader` are no faster. Its rate varies by a factor of three,\n\
         depending on whether the scheduler runs client and registry on the same processor."
    )?;
    if quick {
        writeln!(
            text,
            "\nWithout `--quick`, 1,000 to 10,000 instances are measured as well, which takes Consul minutes."
        )?;
    }
    Ok(text)
}
