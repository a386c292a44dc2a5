//! Measures this registry and `consul agent -dev` in turn, on this machine, and prints a table in
//! Markdown.
//!
//! ```text
//! cargo build --release -p waypost-agent --examples
//! cargo run --release -p waypost-agent --example compare -- --to docs/registry-benchmarks.md
//! ```
//!
//! It takes about six minutes on a machine that has nothing else to do, and ends after twelve with
//! what it has by then. `--quick` leaves out the 10,000 instances, which take Consul minutes. It
//! needs Linux (memory is read from `/proc`) and a `consul` on the path or in `$CONSUL_BIN`. The
//! other side of each measurement is this program, with one thread, on the same processors.

mod client;
mod measure;
mod registry;

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::timeout;

use measure::Figures;
use registry::Registry;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Whatever the machine does meanwhile, it ends by then.
const WITHIN: Duration = Duration::from_secs(12 * 60);

/// So often everything but the 10,000 instances is measured. The median counts.
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
            "--to" => to = Some(PathBuf::from(arguments.next().ok_or("--to: which file?")?)),
            other => return Err(format!("{other}: only --quick and --to FILE are known").into()),
        }
    }
    let mut rounds = Vec::new();
    let done = timeout(WITHIN, compare(quick, &mut rounds)).await;
    // What was measured is worth something even if the rest can't be.
    let text = table(&medians(&rounds), quick)?;
    match to {
        Some(file) => std::fs::write(file, text)?,
        None => print!("{text}"),
    }
    done.map_err(|_| format!("not all was measured in {} minutes", WITHIN.as_secs() / 60))?
}

/// What was measured of ours and of theirs.
type Round = [Figures; 2];

/// The two take turns within each round, so that both see the same machine.
async fn compare(quick: bool, rounds: &mut Vec<Round>) -> Result<()> {
    for round in 0..ROUNDS {
        let figures = next(rounds);
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            measure::in_seconds(REGISTRIES[side], &mut figures[side]).await?;
        }
    }
    if !quick {
        let figures = next(rounds);
        for side in [0, 1] {
            measure::in_minutes(REGISTRIES[side], &mut figures[side]).await?;
        }
    }
    Ok(())
}

fn next(rounds: &mut Vec<Round>) -> &mut Round {
    rounds.push(Round::default());
    let last = rounds.len() - 1;
    &mut rounds[last]
}

/// The median of ours and of theirs, of everything that was measured of both.
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
        "# The embedded registry beside Consul\n\n\
         Made by `cargo run --release -p waypost-agent --example compare{options}`: this registry\n\
         and `consul agent -dev` 1.8.7 in turn, on the same machine ({} processors), with the\n\
         measuring program on the same processors. Each figure is the median of {ROUNDS} rounds;\n\
         those from 1,000 to 10,000 instances are of one. Absolute figures move with the machine;\n\
         the ratios are what counts.\n",
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
        "\nWith one connection ours mostly waits to be woken: asked for nothing but its leader it\n\
         answers as often. Whether the system puts both ends on one processor or on two, where one\n\
         has to wake the other, makes it three times as fast or slow, with any number of instances."
    )?;
    if quick {
        writeln!(
            text,
            "\nWithout `--quick` it also measures 1,000 to 10,000 instances, which takes Consul minutes."
        )?;
    }
    Ok(text)
}
