//! Simulates ten endpoints, three of them degraded, and compares the strategies. Prints the table in
//! `docs/load-balancing.md`, and draws its chart if a file is named.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin degraded_endpoints [FILE.svg]`
//!
//! The clock is simulated and the seeds are fixed, so the result is the same each time.

#[path = "../../../../crates/waypost/tests/it/balance/simulation/degraded_endpoints.rs"]
mod simulation;

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use simulation::Outcome;

fn main() -> std::io::Result<()> {
    let outcomes = simulation::run_all()?;
    println!("| strategy | ejection | failed | p50 | p95 | p99 |\n|---|---|---|---|---|---|");
    for outcome in &outcomes {
        let Outcome {
            strategy, failed, ..
        } = outcome;
        let ejection = if outcome.ejection { "on" } else { "off" };
        let [p50, p95, p99] =
            [outcome.p50, outcome.p95, outcome.p99].map(|latency| latency.as_millis());
        println!("| `{strategy}` | {ejection} | {failed} | {p50} ms | {p95} ms | {p99} ms |");
    }
    match std::env::args().nth(1) {
        Some(path) => fs::write(path, chart(&outcomes)),
        None => Ok(()),
    }
}

const LEFT: u32 = 170;
const TOP: u32 = 64;
const BAR: u32 = 16;
const GROUP: u32 = 2 * BAR + 18;
const WIDTH: u32 = 820;
const SCALE: Duration = Duration::from_millis(300);
/// The length of a bar of `SCALE`, in pixels.
const LENGTH: u32 = 450;

/// A bar for each p99, with a mark at the p50 and the number of failures next to it.
fn chart(outcomes: &[Outcome]) -> String {
    let height = TOP + GROUP * (outcomes.len() as u32 / 2) + 34;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>p99 by strategy, without and with ejection</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" fill=\"#222\">p99 of successful requests; of ten \
         endpoints one is slow, one fails, one starts cold</text>\n"
    );
    legend(&mut svg);
    for step in 0..=3 {
        let latency = SCALE * step / 3;
        let (x, bottom) = (LEFT + pixels(latency), height - 30);
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\n\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{} ms</text>",
            bottom + 16,
            latency.as_millis()
        );
    }
    for (index, outcome) in outcomes.iter().enumerate() {
        bar(&mut svg, index as u32, outcome);
    }
    svg.push_str("</svg>\n");
    svg
}

const OFF: &str = "#c8553d";
const ON: &str = "#2d7f9d";

fn legend(svg: &mut String) {
    for (x, colour, text) in [(16, OFF, "ejection off"), (130, ON, "ejection on")] {
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"37\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"47\" fill=\"#222\">{text}</text>",
            x + 18
        );
    }
    svg.push_str("<text x=\"244\" y=\"47\" fill=\"#222\">white mark: p50</text>\n");
}

fn bar(svg: &mut String, index: u32, outcome: &Outcome) {
    let y = TOP + 8 + index / 2 * GROUP + index % 2 * BAR;
    let (length, median) = (pixels(outcome.p99), LEFT + pixels(outcome.p50));
    let colour = if outcome.ejection { ON } else { OFF };
    if !outcome.ejection {
        let (x, y) = (LEFT - 10, y + BAR + 4);
        let name = outcome.strategy;
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\" fill=\"#222\" \
             font-family=\"monospace\">{name}</text>"
        );
    }
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{length}\" height=\"{}\" fill=\"{colour}\"/>\n\
         <rect x=\"{median}\" y=\"{y}\" width=\"2\" height=\"{}\" fill=\"#fff\"/>\n\
         <text x=\"{}\" y=\"{}\" fill=\"#222\">{} ms, {} failed</text>",
        BAR - 2,
        BAR - 2,
        LEFT + length + 8,
        y + 12,
        outcome.p99.as_millis(),
        outcome.failed
    );
}

fn pixels(latency: Duration) -> u32 {
    (latency.as_secs_f64() / SCALE.as_secs_f64() * f64::from(LENGTH)).round() as u32
}
