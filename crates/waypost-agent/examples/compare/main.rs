//! Measures this registry and `consul agent -dev` in turn, on this machine, and prints a table in
//! Markdown.
//!
//! ```text
//! cargo build --release -p waypost-agent --examples
//! cargo run --release -p waypost-agent --example compare -- --to docs/registry-benchmarks.md
//! ```
//!
//! It takes about six minutes, and gives up after twelve. `--quick` leaves out the 10,000
//! instances, which take Consul minutes. It needs Linux (memory is read from `/proc`) and a
//! `consul` on the path or in `$CONSUL_BIN`. The other side of each measurement is this program,
//! with one thread, on the same processors.

mod client;
mod measure;
mod registry;

use std::collections::BTreeMap;
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
    let rows = timeout(WITHIN, compare(quick))
        .await
        .map_err(|_| format!("not done after {} minutes", WITHIN.as_secs() / 60))??;
    let text = table(&rows, quick)?;
    match to {
        Some(file) => std::fs::write(file, text)?,
        None => print!("{text}"),
    }
    Ok(())
}

/// What is measured, of ours and of theirs, in order.
type Rows = Vec<(&'static str, [f64; 2])>;

/// The two take turns within each round, so that both see the same machine.
async fn compare(quick: bool) -> Result<Rows> {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        rounds.push(turns(round, measure::a_round_of).await?);
    }
    let mut rows = medians(&rounds);
    if !quick {
        rows.extend(medians(&[turns(ROUNDS, measure::ten_thousand).await?]));
    }
    Ok(rows)
}

async fn turns(
    round: usize,
    measure: impl AsyncFn(Registry) -> Result<Figures>,
) -> Result<[Figures; 2]> {
    let mut turns = [Registry::Waypost, Registry::Consul];
    if round % 2 == 1 {
        turns.reverse();
    }
    let mut figures = [measure(turns[0]).await?, measure(turns[1]).await?];
    if round % 2 == 1 {
        figures.reverse();
    }
    Ok(figures)
}

fn medians(rounds: &[[Figures; 2]]) -> Rows {
    let mut rows = Rows::new();
    let mut values: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for (side, figures) in rounds.iter().flat_map(|round| round.iter().enumerate()) {
        for (what, figure) in figures.iter() {
            values.entry((side, what)).or_default().push(figure);
        }
    }
    for (what, _) in rounds.iter().take(1).flat_map(|[ours, _]| ours.iter()) {
        let median = |side| measure::median(values.entry((side, what)).or_default());
        rows.push((what, [0, 1].map(median)));
    }
    rows
}

fn table(rows: &Rows, quick: bool) -> Result<String> {
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
    if quick {
        writeln!(
            text,
            "\nWithout `--quick` it also measures 1,000 to 10,000 instances, which takes Consul minutes."
        )?;
    }
    Ok(text)
}
