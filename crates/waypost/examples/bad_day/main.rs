//! What ten endpoints of which three are in trouble cost the callers, by strategy:
//! `cargo run -p waypost --example bad_day -- docs/bad-day.svg`
//!
//! Prints a table, and draws the chart that stands in `docs/load-balancing.md`. Eight minutes of traffic
//! on a simulated clock takes a moment, and comes out the same each time.

mod simulation;

use std::fmt::Write;
use std::fs;
use std::time::Duration;

use simulation::Day;

fn main() -> std::io::Result<()> {
    let days = simulation::days()?;
    println!("| strategy | ejection | failed | p50 | p95 | p99 |\n|---|---|---|---|---|---|");
    for day in &days {
        let [p50, p95, p99] = [day.p50, day.p95, day.p99].map(|latency| latency.as_millis());
        let (strategy, failed, ejects) = (day.strategy, day.failed, word(day));
        println!("| `{strategy}` | {ejects} | {failed} | {p50} ms | {p95} ms | {p99} ms |");
    }
    match std::env::args().nth(1) {
        Some(path) => fs::write(path, chart(&days)),
        None => Ok(()),
    }
}

fn word(day: &Day) -> &'static str {
    if day.ejection { "on" } else { "off" }
}

const LEFT: u32 = 170;
const TOP: u32 = 64;
const BAR: u32 = 16;
const GROUP: u32 = 2 * BAR + 18;
const WIDTH: u32 = 820;
const SCALE: Duration = Duration::from_millis(300);
/// How many pixels stand for the whole scale.
const LENGTH: u32 = 450;

/// A bar for the p99 of each day, with the p50 as a mark in it, and how many failed behind it.
fn chart(days: &[Day]) -> String {
    let height = TOP + GROUP * (days.len() as u32 / 2) + 34;
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
    for (place, day) in days.iter().enumerate() {
        bar(&mut svg, place as u32, day);
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

fn bar(svg: &mut String, place: u32, day: &Day) {
    let y = TOP + 8 + place / 2 * GROUP + place % 2 * BAR;
    let (length, median) = (pixels(day.p99), LEFT + pixels(day.p50));
    let colour = if day.ejection { ON } else { OFF };
    if !day.ejection {
        let (x, y) = (LEFT - 10, y + BAR + 4);
        let name = day.strategy;
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
        day.p99.as_millis(),
        day.failed
    );
}

fn pixels(latency: Duration) -> u32 {
    (latency.as_secs_f64() / SCALE.as_secs_f64() * f64::from(LENGTH)).round() as u32
}
