//! Writes the Markdown report.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;
use pingora_load_balancing::selection::{Consistent, Random, RoundRobin};

use crate::measure::{Contest, median, nanos, nanos_of_two, scaling};
use crate::{ours, peers};

const SIZES: [usize; 4] = [3, 100, 1_000, 10_000];

/// The rows of a table: what is measured, and the nanoseconds for each number of instances.
type Rows = Vec<(&'static str, Vec<f64>)>;

pub(crate) fn report() -> String {
    let mut text = String::from(INTRODUCTION);
    let _ = writeln!(text, "\nMachine: {}.\n", machine());
    text += "## One pick, one thread, in nanoseconds\n\n";
    let picks = pick_rows("");
    table(&mut text, &picks);
    ratios(&mut text, &picks);
    text += "\n## Two threads on one balancer: picks per second of CPU time, as multiples of one thread's\n\n";
    table(&mut text, &scaling_rows(""));
    text += "\n## Other costs\n\n| what | waypost | peer |\n|---|---|---|\n";
    other_costs(&mut text);
    text += MACHINE_COSTS;
    machine_costs(&mut text);
    text += INSTRUCTIONS;
    for (strategy, count) in instructions() {
        let count = count.map_or("(no valgrind)".into(), |count| format!("{count:.0}"));
        let _ = writeln!(text, "| `{strategy}` | {count} |");
    }
    text
}

/// The rows whose names contain `only`.
pub(crate) fn some_rows(only: &str) -> String {
    let mut text = String::new();
    table(&mut text, &pick_rows(only));
    table(&mut text, &scaling_rows(only));
    text
}

const INTRODUCTION: &str = "# What a pick costs

One command measures Waypost and its peers in the same run. It needs cmake to build pingora, and \
valgrind for the last table:

    cargo run --release --manifest-path bench/Cargo.toml -p picks -- docs/benchmarks.md

Figures are CPU time. Each candidate runs many short rounds, alternating with the others, and its \
fastest tenth counts. Compare ratios: absolute figures depend on the machine. Waypost's balancers run \
with health, weights from 1 to 10 and outlier detection; peers run with their defaults.
";

fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |line| {
        line.trim_start_matches(['\t', ':', ' '])
    });
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    format!("{model}, {cores} cores")
}

/// Measures all entries for each size; each size becomes a column.
fn pick_rows(only: &str) -> Rows {
    let mut rows = Rows::new();
    for size in SIZES {
        eprintln!("one thread, n = {size}");
        let mut contest = Contest::default();
        let mut enter = |entry: Entry| {
            if entry.0.contains(only) {
                entry.1(&mut contest, entry.0, size);
            }
        };
        ENTRIES.iter().copied().for_each(&mut enter);
        for (place, (name, nanos)) in contest.results().into_iter().enumerate() {
            match rows.get_mut(place) {
                Some((_, costs)) => costs.push(nanos),
                None => rows.push((name, vec![nanos])),
            }
        }
    }
    rows
}

type Entry = (&'static str, fn(&mut Contest<'static>, &'static str, usize));

const ENTRIES: [Entry; 15] = [
    ("waypost round_robin", |contest, name, size| {
        let setup = ours::setup("round_robin", size);
        contest.enter(name, move || setup.pick());
    }),
    (
        "waypost smooth_weighted_round_robin",
        |contest, name, size| {
            let setup = ours::setup("smooth_weighted_round_robin", size);
            contest.enter(name, move || setup.pick());
        },
    ),
    ("waypost random", |contest, name, size| {
        let setup = ours::setup("random", size);
        contest.enter(name, move || setup.pick());
    }),
    ("waypost weighted_random", |contest, name, size| {
        let setup = ours::setup("weighted_random", size);
        contest.enter(name, move || setup.pick());
    }),
    (
        "waypost random, and the instance's port read",
        |contest, name, size| {
            let setup = ours::setup("random", size);
            contest.enter(name, move || setup.pick_and_read());
        },
    ),
    ("waypost consistent_hash, by key", |contest, name, size| {
        let setup = ours::setup("consistent_hash", size);
        let mut key = 0_u64;
        contest.enter(name, move || {
            key += 1;
            setup.pick_for(key);
        });
    }),
    (
        "waypost round_robin, lease and outcome",
        |contest, name, size| {
            let setup = ours::setup("round_robin", size);
            contest.enter(name, move || setup.outcome());
        },
    ),
    (
        "waypost least_connections, lease and outcome",
        |contest, name, size| {
            let setup = ours::setup("least_connections", size);
            contest.enter(name, move || setup.outcome());
        },
    ),
    (
        "waypost p2c_peak_ewma, lease and outcome, caller's clock",
        |contest, name, size| {
            let setup = ours::setup("p2c_peak_ewma", size);
            let mut clock = ours::CallersClock::start();
            contest.enter(name, move || setup.outcome_at(&mut clock));
        },
    ),
    (
        "waypost p2c_peak_ewma, lease and outcome, its own clock",
        |contest, name, size| {
            let setup = ours::setup("p2c_peak_ewma", size);
            contest.enter(name, move || setup.outcome());
        },
    ),
    (
        "pingora-load-balancing 0.9 RoundRobin",
        |contest, name, size| {
            let balancer = peers::pingora::<RoundRobin>(size);
            contest.enter(name, move || peers::pingora_pick(&balancer, b""));
        },
    ),
    (
        "pingora-load-balancing 0.9 Random",
        |contest, name, size| {
            let balancer = peers::pingora::<Random>(size);
            contest.enter(name, move || peers::pingora_pick(&balancer, b""));
        },
    ),
    (
        "pingora-load-balancing 0.9 Consistent",
        |contest, name, size| {
            let balancer = peers::pingora::<Consistent>(size);
            let mut key = 0_u64;
            contest.enter(name, move || {
                key += 1;
                peers::pingora_pick(&balancer, &key.to_le_bytes());
            });
        },
    ),
    (
        "tower 0.5 p2c, PendingRequests, ready and call",
        |contest, name, size| {
            let mut balance = peers::tower_pending(size);
            contest.enter(name, move || peers::tower_call(&mut balance));
        },
    ),
    (
        "tower 0.5 p2c, PeakEwma, ready and call",
        |contest, name, size| {
            let mut balance = peers::tower_peak_ewma(size);
            contest.enter(name, move || peers::tower_call(&mut balance));
        },
    ),
];

fn scaling_rows(only: &str) -> Rows {
    let mut rows = Rows::new();
    let mut row = |name: &'static str, cost: &dyn Fn(usize) -> f64| {
        if !name.contains(only) {
            return;
        }
        eprintln!("{name}, two threads");
        rows.push((name, SIZES.iter().map(|&size| cost(size)).collect()));
    };
    let ours = |strategy: &'static str| {
        move |size| {
            let setup = ours::setup(strategy, size);
            scaling(|| setup.pick())
        }
    };
    row("waypost round_robin", &ours("round_robin"));
    row("waypost random", &ours("random"));
    row("waypost weighted_random", &ours("weighted_random"));
    row("waypost least_connections, leases", &|size| {
        let setup = ours::setup("least_connections", size);
        scaling(|| setup.outcome())
    });
    row("waypost p2c_peak_ewma, leases and outcomes", &|size| {
        let setup = ours::setup("p2c_peak_ewma", size);
        scaling(|| setup.outcome())
    });
    row("pingora-load-balancing 0.9 RoundRobin", &|size| {
        let balancer = peers::pingora::<RoundRobin>(size);
        scaling(|| peers::pingora_pick(&balancer, b""))
    });
    rows
}

fn other_costs(text: &mut String) {
    for strategy in [
        "round_robin",
        "weighted_random",
        "smooth_weighted_round_robin",
        "consistent_hash",
    ] {
        let setup = ours::setup(strategy, 10_000);
        let ours = setup.change().as_secs_f64() * 1e3;
        let peer = match strategy {
            "round_robin" => pingora_rebuild::<RoundRobin>(),
            "consistent_hash" => pingora_rebuild::<Consistent>(),
            _ => "–".into(),
        };
        let _ = writeln!(
            text,
            "| one of 10,000 instances changes, until `{strategy}` picks see it | {ours:.2} ms | {peer} |"
        );
    }
    let url = nanos({
        let setup = ours::setup("round_robin", 100);
        move || setup.url()
    });
    let _ = writeln!(
        text,
        "| warm `service_url`, with its String | {url:.0} ns | – |"
    );
    let memory = own("memory").parse::<f64>().unwrap_or(f64::NAN) / 1e6;
    let _ = writeln!(
        text,
        "| 100,000 instances in 1,000 services, each with a balancer: resident memory | {memory:.0} MB | – |"
    );
}

fn pingora_rebuild<S>() -> String
where
    S: pingora_load_balancing::selection::BackendSelection + 'static,
    S::Iter: pingora_load_balancing::selection::BackendIter,
{
    let rounds = (0..5).map(|_| peers::pingora_rebuild::<S>(10_000).as_secs_f64() * 1e3);
    format!("pingora rebuilds: {:.1} ms", median(rounds.collect()))
}

const MACHINE_COSTS: &str = "
## Lower bounds set by the hardware

A pick without a lease borrows from an `ArcSwap`. A lease also increments and later decrements a \
reference count and the count of requests in flight: four locked instructions, on cache lines that \
only this core writes. With up to 32 endpoints, the requests in flight are counted exactly, and all \
cores write the same cache line of an endpoint. A line that another core has written must be fetched \
first, so two threads gain little with few endpoints. Reading the clock costs more than all of this.

| what | nanoseconds |
|---|---|
";

fn machine_costs(text: &mut String) {
    let mut row = |what, nanos: f64| {
        let _ = writeln!(text, "| {what} | {nanos:.1} |");
    };
    row("reading the clock", nanos(Instant::now));
    let table = ArcSwap::from_pointee(0_u64);
    row("borrowing from an `ArcSwap`", nanos(|| **table.load()));
    let word = AtomicU64::new(0);
    let add = || word.fetch_add(1, Ordering::Relaxed);
    row("a locked addition", nanos(add));
    row(
        "the same while another thread does it too",
        nanos_of_two(add),
    );
}

const INSTRUCTIONS: &str = "
## Instructions of a pick

Counted by callgrind, so a busy machine doesn't change them. `least_connections` and `p2c_peak_ewma` \
include a lease and its outcome. This command fails if a count has grown by more than a tenth:

    cargo run --release --manifest-path bench/Cargo.toml -p picks -- check docs/benchmarks.md

| strategy, 1,000 instances | instructions |
|---|---|
";

const STRATEGIES: [&str; 7] = [
    "round_robin",
    "smooth_weighted_round_robin",
    "random",
    "weighted_random",
    "least_connections",
    "p2c_peak_ewma",
    "consistent_hash",
];

/// Instructions per call, from the difference between many and few calls; `None` without valgrind.
fn instructions() -> impl Iterator<Item = (&'static str, Option<f64>)> {
    STRATEGIES.into_iter().map(|strategy| {
        let (few, many) = (10_000, 110_000);
        let counted = collected(strategy, many).zip(collected(strategy, few));
        let each = counted.map(|(many, few)| (many - few) / 100_000.0);
        (strategy, each)
    })
}

/// The strategies that take over a tenth more instructions than the report says.
pub(crate) fn regressions(report: &str) -> Vec<String> {
    let reported = |strategy: &str| {
        let start = format!("| `{strategy}` | ");
        let row = report.lines().find_map(|line| line.strip_prefix(&start))?;
        row.trim_end_matches(" |").parse::<f64>().ok()
    };
    let fault = |(strategy, count): (&str, Option<f64>)| match (reported(strategy), count) {
        (None, _) => Some(format!("{strategy}: the report has no count")),
        (_, None) => Some(format!(
            "{strategy}: valgrind counted nothing; is it installed?"
        )),
        (Some(reported), Some(count)) if count > reported * 1.1 => Some(format!(
            "{strategy}: {count:.0} instructions, the report says {reported:.0}"
        )),
        _ => None,
    };
    instructions().filter_map(fault).collect()
}

fn collected(strategy: &str, count: usize) -> Option<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().ok()?)
        .args(["calls", strategy, "1000", &count.to_string()])
        .output()
        .ok()?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = stderr.lines().find(|line| line.contains("Collected :"))?;
    line.split_whitespace().last()?.parse().ok()
}

fn own(argument: &str) -> String {
    let program = std::env::current_exe().unwrap_or_default();
    let output = Command::new(program).arg(argument).output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn table(text: &mut String, rows: &Rows) {
    *text += "| | n = 3 | n = 100 | n = 1,000 | n = 10,000 |\n|---|---|---|---|---|\n";
    for (name, costs) in rows {
        let _ = write!(text, "| {name} |");
        for cost in costs {
            let digits = if *cost < 10.0 { 2 } else { 0 };
            let _ = write!(text, " {cost:.digits$} |");
        }
        text.push('\n');
    }
}

/// The ratios that the documentation claims, over all sizes.
fn ratios(text: &mut String, rows: &Rows) {
    let costs = |name: &str| {
        let row = rows.iter().find(|(row, _)| row.starts_with(name));
        row.map_or(&[][..], |(_, costs)| &costs[..])
    };
    text.push('\n');
    let mut ratio = |ours: &str, peer: &str| {
        let pairs = costs(ours).iter().zip(costs(peer));
        let ratios: Vec<f64> = pairs.map(|(ours, peer)| peer / ours).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "- {ours} is {least:.1} to {most:.1} times as fast as {peer}."
        );
    };
    ratio(
        "waypost round_robin",
        "pingora-load-balancing 0.9 RoundRobin",
    );
    ratio("waypost random", "pingora-load-balancing 0.9 Random");
    ratio(
        "waypost weighted_random",
        "pingora-load-balancing 0.9 Random",
    );
    ratio(
        "waypost consistent_hash, by key",
        "pingora-load-balancing 0.9 Consistent",
    );
    ratio(
        "waypost least_connections",
        "tower 0.5 p2c, PendingRequests",
    );
    let ewma = "waypost p2c_peak_ewma, lease and outcome, ";
    for clock in ["caller's clock", "its own clock"] {
        ratio(&format!("{ewma}{clock}"), "tower 0.5 p2c, PeakEwma");
    }
}
